// A Node server with the package `ws`: WebSocket echo behind PORT or descriptor 3. On TERM it stops listening and ends
// when its WebSockets have. The message `push 5` makes it talk every 5 ms.
'use strict'
const http = require('node:http')
const { WebSocketServer } = require('ws')

const server = http.createServer((request, response) => response.end(process.env.LBPROXY_GENERATION))
const sockets = new WebSocketServer({ server, perMessageDeflate: true })

sockets.on('connection', (socket) => {
  let timer
  socket.on('error', () => {}) // what is no WebSocket is closed with 1002
  socket.on('message', (data, isBinary) => {
    const text = isBinary ? '' : data.toString()
    if (text.startsWith('push ')) {
      let number = 0
      timer = setInterval(() => socket.send(`${process.env.LBPROXY_GENERATION} ${++number} ${'x'.repeat(500)}`), Number(text.slice(5)))
    } else socket.send(data, { binary: isBinary })
  })
  socket.on('close', (code, reason) => {
    clearInterval(timer)
    console.log(`closed with ${code} ${reason}`)
  })
})

if (process.env.LISTEN_FDS) server.listen({ fd: 3 })
else server.listen(Number(process.env.PORT), process.env.HOST || '127.0.0.1')

process.on('SIGTERM', () => {
  console.log(`TERM with ${sockets.clients.size} in hand`)
  server.close(() => process.exit(0))
  server.closeIdleConnections()
})
