// The original at the other end of a test. Arguments: the folder that has
// node_modules, the port to connect to, and options as JSON:
//   initiator, seed (hex), keepAlive (ms)
// It sends back every message, and tells on stdout, a JSON object a line, whom
// it talks to and how it ended.
const path = require('path')
const net = require('net')
const [, , modules, port, json] = process.argv
const load = require('module').createRequire(path.resolve(modules) + '/')
const SecretStream = load('@hyperswarm/secret-stream')

const o = JSON.parse(json)
const tell = (v) => console.log(JSON.stringify(v))
const s = new SecretStream(o.initiator, net.connect(Number(port), '127.0.0.1'), {
  keyPair: SecretStream.keyPair(Buffer.from(o.seed, 'hex')),
  keepAlive: o.keepAlive
})
let messages = 0
let empty = 0
s.on('connect', () => tell({
  local: s.publicKey.toString('hex'),
  remote: s.remotePublicKey.toString('hex'),
  hash: s.handshakeHash.toString('hex')
}))
s.on('data', (m) => {
  messages++
  if (m.byteLength === 0) empty++
  if (s.write(m) === false) s.pause()
})
s.on('drain', () => s.resume())
s.on('end', () => s.end())
s.on('error', (err) => tell({ error: err.message }))
s.on('close', () => tell({ messages, empty }))
