// How Node reads bytes: llhttp through http.Server and http.request, strict (insecureHTTPParser: false).
// On stdin: 4 bytes of length, one letter (Q: what a server gets, A and H: the answer to GET and to HEAD), the bytes of
// one connection to its end. On stdout: one line of JSON for each, what was understood; strings are latin-1.
'use strict'
const http = require('node:http')
const { Duplex } = require('node:stream')

class Wire extends Duplex {
  _read () {}
  _write (chunk, encoding, done) { done() }
  setTimeout () { return this }
  setNoDelay () { return this }
  setKeepAlive () { return this }
  play (raw) {
    this.push(raw)
    this.push(null)
  }
}

function take (message, first) {
  const found = {
    ...first,
    version: message.httpVersion,
    headers: message.rawHeaders,
    body: '',
    trailers: [],
    complete: false
  }
  message.setEncoding('latin1')
  message.on('data', (data) => { found.body += data })
  message.on('error', () => {})
  message.on('end', () => {
    found.complete = message.complete
    found.trailers = message.rawTrailers
  })
  return found
}

const readings = new WeakMap()
const server = http.createServer({ insecureHTTPParser: false, keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0 })
server.on('request', (request, response) => {
  readings.get(request.socket).messages.push(take(request, { method: request.method, url: request.url }))
  request.on('close', () => response.end())
})
server.on('upgrade', (request, socket, head) => {
  readings.get(socket).messages.push({ ...take(request, { method: request.method, url: request.url }), upgrade: head.toString('latin1') })
})
server.on('clientError', (error, socket) => {
  readings.get(socket).error = error.code || String(error)
})

function readRequests (raw) {
  const wire = new Wire()
  const reading = { messages: [], error: null }
  readings.set(wire, reading)
  server.emit('connection', wire)
  wire.play(raw)
  return [wire, reading]
}

function readAnswer (raw, method) {
  const wire = new Wire()
  const reading = { messages: [], error: null }
  const request = http.request({ method, insecureHTTPParser: false, createConnection: () => wire })
  const note = (message) => reading.messages.push(take(message, { status: message.statusCode, reason: message.statusMessage }))
  request.on('response', note)
  request.on('information', (told) => {
    reading.messages.push({ status: told.statusCode, reason: told.statusMessage, headers: told.rawHeaders, complete: true })
  })
  request.on('upgrade', (message, socket, head) => {
    note(message)
    reading.messages.at(-1).upgrade = head.toString('latin1')
  })
  request.on('error', (error) => { reading.error = error.code || String(error) })
  request.on('socket', () => setImmediate(() => wire.play(raw)))
  request.end()
  return [wire, reading]
}

let pending = Buffer.alloc(0)
const waiting = []
let busy = false

function next () {
  const job = waiting.shift()
  busy = job !== undefined
  if (!busy) return
  const raw = job.subarray(1)
  const [wire, reading] = job[0] === 0x51 ? readRequests(raw) : readAnswer(raw, job[0] === 0x41 ? 'GET' : 'HEAD')
  let rounds = 0
  const settled = () => {
    // Everything is in memory: when the stream has ended and a few turns have passed, nothing more will come.
    if (!wire.readableEnded && !wire.destroyed && rounds < 200) rounds++
    else rounds += 50
    if (rounds < 400) return setImmediate(settled)
    wire.destroy()
    process.stdout.write(JSON.stringify(reading) + '\n')
    next()
  }
  setImmediate(settled)
}

process.stdin.on('data', (data) => {
  pending = Buffer.concat([pending, data])
  while (pending.length >= 4) {
    const size = pending.readUInt32BE(0)
    if (pending.length < 4 + size) break
    waiting.push(pending.subarray(4, 4 + size))
    pending = pending.subarray(4 + size)
  }
  if (!busy) next()
})
process.stdin.on('end', () => process.exit(0))
