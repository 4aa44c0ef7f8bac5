// Node's own HTTP/2 client: node http2_client.js URL. Prints what came as lines of JSON; the last stream outlives GOAWAY.
'use strict'
const http2 = require('node:http2')

const session = http2.connect(process.argv[2], { rejectUnauthorized: false })
const say = what => console.log(JSON.stringify(what))
const events = []
session.on('goaway', (code, last) => { events.push('goaway'); say({ goaway: code, last }) })
session.on('error', error => say({ error: String(error) }))

const ask = (headers, body, trailers) => new Promise((resolve, reject) => {
  const stream = session.request(headers, { endStream: body === undefined, waitForTrailers: Boolean(trailers) })
  const answer = { bytes: 0 }
  stream.on('response', fields => { answer.status = fields[':status'] })
  stream.on('data', part => { answer.bytes += part.length })
  stream.on('trailers', fields => { answer.trailers = { ...fields } })
  stream.on('wantTrailers', () => stream.sendTrailers(trailers))
  stream.on('end', () => resolve(answer))
  stream.on('error', error => resolve({ error: String(error) }))
  if (body !== undefined) stream.end(body)
})

async function main () {
  const many = await Promise.all(Array.from({ length: 150 }, () => ask({ ':path': '/2k' })))
  say({ many: many.filter(one => one.status === 200 && one.bytes === 2048).length })
  const body = Buffer.alloc(3000000, 'x')
  say({ sum: await ask({ ':path': '/sum', ':method': 'POST' }, body) })
  say({ trailers: await ask({ ':path': '/trailers', ':method': 'POST' }, body, { 'x-said': 'words' }) })
  const slow = ask({ ':path': '/drip?n=20&every=0.1' })
  const also = ask({ ':path': '/drip?n=20&every=0.1' })
  setTimeout(() => say({ waiting: true }), 200)
  say({ slow: await slow, also: await also, events })
  session.on('close', () => say({ closed: true }))
}
main().catch(error => { say({ error: String(error) }); process.exit(1) })
