// The original at the other end of a test. Arguments: the folder that has
// node_modules, the port to connect to, and whether it is the initiator.
//
// It opens and answers:
//   echo, any id     sends every message back, type by type; type 2 closes it
//   count, id 1..n   opened by us when asked: sends 200 messages on each, corked
//                    ten at a time over all channels, and counts what comes back
// What it hears on channel "control" (JSON) is what it is asked to do. It tells
// what happened on stdout, a JSON object a line.
const path = require('path')
const net = require('net')
const [, , modules, port, initiator] = process.argv
const load = require('module').createRequire(path.resolve(modules) + '/')
const SecretStream = load('@hyperswarm/secret-stream')
const Protomux = load('protomux')
const c = load('compact-encoding')

const tell = (v) => console.log(JSON.stringify(v))
const s = new SecretStream(initiator === 'true', net.connect(Number(port), '127.0.0.1'), { keepAlive: 5000 })
const mux = new Protomux(s)
s.on('error', (err) => tell({ error: err.message }))
s.on('close', () => tell({ end: true }))

mux.pair({ protocol: 'echo' }, (id) => {
  const ch = mux.createChannel({
    protocol: 'echo',
    id,
    handshake: c.string,
    messages: [0, 1].map((type) => ({
      encoding: c.raw,
      onmessage: (m) => ch.messages[type].send(m)
    })).concat({ encoding: c.raw, onmessage: () => ch.close() }),
    onopen: (handshake) => tell({ opened: id.toString('hex'), handshake }),
    onclose: (remote) => tell({ closed: id.toString('hex'), remote })
  })
  ch.open('from the original')
})

const control = mux.createChannel({
  protocol: 'control',
  messages: [{ encoding: c.raw, onmessage: (m) => ask(JSON.parse(m)) }]
})
control.open()

function ask (what) {
  if (what.count) count(what.count)
  if (what.older) older()
  if (what.end) s.end()
}

function count (n) {
  const channels = []
  const got = new Array(n).fill(0)
  let closed = 0
  let wrong = 0
  for (let i = 1; i <= n; i++) {
    const ch = mux.createChannel({
      protocol: 'count',
      id: Buffer.from([i]),
      messages: [{
        encoding: c.raw,
        onmessage (m) {
          if (m.readUInt32LE(0) !== got[i - 1]++ || m.byteLength !== size(i, got[i - 1] - 1)) wrong++
          if (got[i - 1] === 200) ch.close()
        }
      }],
      onclose () {
        if (++closed === n) tell({ counted: got, wrong })
      }
    })
    ch.open()
    channels.push(ch)
  }
  for (let m = 0; m < 200; m += 10) {
    mux.cork()
    for (let k = m; k < m + 10; k++) {
      channels.forEach((ch, i) => {
        const b = Buffer.alloc(size(i + 1, k), k)
        b.writeUInt32LE(k, 0)
        ch.messages[0].send(b)
      })
    }
    mux.uncork()
  }
}

function size (channel, message) {
  return 4 + (channel * 7919 + message * 104729) % 3000
}

// older opens a channel whose name the other side has as an alias, as it has
// the other side's.
function older () {
  const ch = mux.createChannel({
    protocol: 'older',
    aliases: ['newer'],
    messages: [{ encoding: c.string, onmessage: (text) => tell({ older: text }) }]
  })
  ch.open()
}
