// A backend that speaks HTTP/2 only: h2c, or TLS with --pem FILE (ALPN h2). Echoes what it is sent.
// node http2_server.js --port 1234 [--pem FILE]
// Paths: /trailers (a trailer with the size), /early (a 103 first), /slow (answers after 0.3 s), all others echo.
// Ends on TERM when its streams are done, as `server.close` of Node does with GOAWAY.
const fs = require("fs");
const http2 = require("http2");

const option = (name) => process.argv[process.argv.indexOf(name) + 1];
const pem = process.argv.includes("--pem") ? fs.readFileSync(option("--pem")) : null;
const server = pem ? http2.createSecureServer({ cert: pem, key: pem }) : http2.createServer();
const sessions = new Set();
server.on("session", (session) => {
  sessions.add(session);
  session.on("close", () => sessions.delete(session));
});
server.on("sessionError", () => {});
server.on("stream", (stream, headers) => {
  const chunks = [];
  stream.on("error", () => {});
  stream.on("data", (chunk) => chunks.push(chunk));
  stream.on("end", () => {
    const body = Buffer.concat(chunks);
    const path = headers[":path"].split("?")[0];
    const answer = { ":status": 200, "x-method": headers[":method"], "x-generation": process.env.LBPROXY_GENERATION || "-" };
    if (path.endsWith("/early")) stream.additionalHeaders({ ":status": 103, link: "</a.css>" });
    if (path.endsWith("/trailers")) {
      stream.respond(answer, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-size": String(body.length) }));
      stream.end(body);
    } else {
      setTimeout(() => {
        if (stream.destroyed) return;
        stream.respond({ ...answer, "content-length": body.length });
        stream.end(body);
      }, path.endsWith("/slow") ? 300 : 0);
    }
  });
});
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  for (const session of sessions) session.close();
});
server.listen(Number(option("--port")), "127.0.0.1");
