import { expect, it } from 'vitest'
import { urlOf } from '../../../src/runtime/gateway/status.ts'

it.each([
  ['0.0.0.0', 'http://127.0.0.1:80'],
  ['::', 'http://[::1]:80'],
  ['fd00::7', 'http://[fd00::7]:80'],
  ['shop.example', 'http://shop.example:80'],
])('says where it can be reached that listens on %s', (host, url) => expect(urlOf(host, 80)).toBe(url))
