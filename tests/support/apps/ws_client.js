// Node's own WebSocket client: `node --experimental-websocket ws_client.js URL`. One line of JSON per event; it
// reconnects at once, and ends when it has been closed once and echoed again.
'use strict'
const url = process.argv[2]
const say = (event) => console.log(JSON.stringify(event))
let closes = 0

function connect () {
  const socket = new WebSocket(url)
  socket.onopen = () => {
    say({ event: 'open', extensions: socket.extensions })
    socket.send('hello'.repeat(closes ? 1 : 60000))
  }
  socket.onmessage = (event) => {
    say({ event: 'message', length: event.data.length })
    if (closes) socket.close(1000, 'done')
  }
  socket.onerror = (event) => say({ event: 'error', message: String(event.message) })
  socket.onclose = (event) => {
    say({ event: 'close', code: event.code, reason: event.reason, clean: event.wasClean })
    if (closes++ === 0) connect()
  }
}
connect()
