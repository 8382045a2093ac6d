import { describe, expect, it } from 'vitest'
import { encodePath, encodeQuery, sign } from '../../../../src/domain/bodies/stores/signature-v4.ts'

// The examples of https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
const credentials = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
  region: 'us-east-1',
}
const now = Date.UTC(2013, 4, 24)
const empty = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
const headers = { Host: 'examplebucket.s3.amazonaws.com' }

describe('a signature', () => {
  it.each([
    [
      'GET of a range',
      { method: 'GET', path: '/test.txt', headers: { ...headers, Range: 'bytes=0-9' }, contentSha256: empty },
      'host;range;x-amz-content-sha256;x-amz-date',
      'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
    ],
    [
      'PUT',
      {
        method: 'PUT',
        path: encodePath('/test$file.text'),
        headers: {
          ...headers,
          Date: 'Fri, 24 May 2013 00:00:00 GMT',
          'x-amz-storage-class': 'REDUCED_REDUNDANCY',
        },
        contentSha256: '44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072',
      },
      'date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class',
      '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
    ],
    [
      'GET with a query that has no value',
      { method: 'GET', path: '/', query: { lifecycle: '' }, headers, contentSha256: empty },
      'host;x-amz-content-sha256;x-amz-date',
      'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543',
    ],
    [
      'list',
      { method: 'GET', path: '/', query: { prefix: 'J', 'max-keys': '2' }, headers, contentSha256: empty },
      'host;x-amz-content-sha256;x-amz-date',
      '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
    ],
  ])('of a %s is the published one', (_what, request, signedHeaders, signature) => {
    expect(sign(credentials, { ...request, now })['Authorization']).toBe(
      `AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=${signedHeaders},Signature=${signature}`,
    )
  })

  it('encodes all but the unreserved characters, and keeps the slashes of a path', () => {
    expect(encodePath("/a b/ü!'()*~-._+%/")).toBe('/a%20b/%C3%BC%21%27%28%29%2A~-._%2B%25/')
    expect(encodeQuery({ b: '/', a: '=&' })).toBe('a=%3D%26&b=%2F')
  })
})
