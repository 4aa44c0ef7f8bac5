// A Node HTTP server: PORT, LBPROXY_SOCKET or the descriptor 3 of LISTEN_FDS. Ends on TERM when its requests are done.
'use strict'
const http = require('node:http')

const me = { slot: process.env.LBPROXY_SLOT, generation: process.env.LBPROXY_GENERATION, pid: process.pid }

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost')
  if (url.pathname === '/echo') {
    response.setHeader('Content-Type', request.headers['content-type'] || 'application/octet-stream')
    request.pipe(response)
  } else if (url.pathname === '/headers') {
    response.end(JSON.stringify(request.rawHeaders))
  } else if (url.pathname === '/slow') {
    setTimeout(() => response.end(JSON.stringify(me)), 1000 * Number(url.searchParams.get('s') || 1))
  } else if (url.pathname === '/trailers') {
    let bytes = 0
    response.setHeader('Trailer', 'X-Bytes, X-Heard')
    request.on('data', part => { bytes += part.length })
    request.on('end', () => {
      response.write('body')
      response.addTrailers({ 'X-Bytes': String(bytes), 'X-Heard': request.trailers['x-said'] || '-' })
      response.end()
    })
  } else if (url.pathname === '/big') {
    response.end(Buffer.alloc(Number(url.searchParams.get('bytes') || 1000), 'x'))
  } else {
    response.setHeader('Content-Type', 'application/json')
    response.end(JSON.stringify(me))
  }
})

if (process.env.LISTEN_FDS) server.listen({ fd: 3 })
else server.listen(process.env.LBPROXY_SOCKET || { port: Number(process.env.PORT), host: process.env.HOST || '127.0.0.1' })

process.on('SIGTERM', () => {
  server.close(() => process.exit(0))
  server.closeIdleConnections()
})
