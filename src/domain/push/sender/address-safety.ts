import { type LookupAddress, lookup } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'
import { ADDRESS_REFUSED } from '../errors.ts'

/**
 * What is not the public internet: the special-purpose registries of IANA (RFC 6890 and successors), and the
 * address at which one large cloud serves its machines' secrets. Those of the others are link-local or shared space.
 */
const notPublic: readonly [address: string, prefix: number, family: 'ipv4' | 'ipv6'][] = [
  ['0.0.0.0', 8, 'ipv4'],
  ['10.0.0.0', 8, 'ipv4'],
  ['100.64.0.0', 10, 'ipv4'],
  ['127.0.0.0', 8, 'ipv4'],
  ['168.63.129.16', 32, 'ipv4'],
  ['169.254.0.0', 16, 'ipv4'],
  ['172.16.0.0', 12, 'ipv4'],
  ['192.0.0.0', 24, 'ipv4'],
  ['192.0.2.0', 24, 'ipv4'],
  ['192.88.99.0', 24, 'ipv4'],
  ['192.168.0.0', 16, 'ipv4'],
  ['198.18.0.0', 15, 'ipv4'],
  ['198.51.100.0', 24, 'ipv4'],
  ['203.0.113.0', 24, 'ipv4'],
  ['224.0.0.0', 3, 'ipv4'],
  // Only 2000::/3 is handed out; what is special within it follows.
  ['::', 3, 'ipv6'],
  ['4000::', 2, 'ipv6'],
  ['8000::', 1, 'ipv6'],
  ['2001::', 23, 'ipv6'],
  ['2001:db8::', 32, 'ipv6'],
  // Carries an IPv4 address within, of which nobody knows where it leads.
  ['2002::', 16, 'ipv6'],
  ['3fff::', 20, 'ipv6'],
]

/** One for each family: a list with both would judge an IPv4 address by its form mapped into IPv6. */
const refused = { ipv4: createBlockList('ipv4'), ipv6: createBlockList('ipv6') }

function createBlockList(of: 'ipv4' | 'ipv6'): BlockList {
  const list = new BlockList()
  for (const [address, prefix, family] of notPublic) {
    if (family === of) list.addSubnet(address, prefix, family)
  }
  return list
}

/** Whether an address belongs to the public internet. */
export function isPublicAddress(address: string): boolean {
  const version = isIP(address)
  if (version === 0) return false
  const family = version === 6 ? 'ipv6' : 'ipv4'
  return !refused[family].check(address.replace(/%.*$/, ''), family)
}

/** @throws ADDRESS_REFUSED for an address that stands in a URL; names are judged once they are resolved */
export function assertPublicHost(host: string): void {
  const bare = host.replace(/^\[|\]$/g, '')
  if (isIP(bare) !== 0 && !isPublicAddress(bare)) throw ADDRESS_REFUSED({ host })
}

/**
 * Resolves a name for a connection and refuses it if any of its addresses is not public. The connection is made
 * to what was judged here, so a name server cannot answer otherwise the second time.
 */
export const publicLookup: LookupFunction = (host, options, callback) => {
  lookup(host, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, [])
    const bad = addresses.find((each) => !isPublicAddress(each.address))
    const [first] = addresses
    if (bad || !first) return callback(ADDRESS_REFUSED({ host }) as NodeJS.ErrnoException, [])
    if (options.all === true) return callback(null, addresses as LookupAddress[])
    return callback(null, first.address, first.family)
  })
}
