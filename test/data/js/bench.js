// What make bench-data measures of the JavaScript originals. One process does one
// thing, and says in one line of JSON how long it took:
//
//   node bench.js append DIR 20000 1024 1
//   {"seconds":1.2,"ops":20000,"bytes":20480000,"sum":"...","peak":123456}
//
// The Go side (test/bench) has the same words, makes the same data from the same
// numbers, and must come to the same sum: the tree's hash of what was written, or
// the total of what was read.
'use strict'
const fs = require('fs')
const net = require('net')
const Corestore = require('corestore')
const Hyperbee = require('hyperbee')
const Hyperdrive = require('hyperdrive')
const Localdrive = require('localdrive')
const SecretStream = require('@hyperswarm/secret-stream')

const POOL = 1024 // different blocks there are; block i is block i modulo that

// random is Marsaglia's xorshift with 32 bits.
function random(seed) {
  let x = seed
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return x >>> 0
  }
}

function pool(size) {
  const next = random(1)
  const all = []
  for (let i = 0; i < POOL; i++) {
    const b = Buffer.alloc(size)
    for (let at = 0; at + 4 <= size; at += 4) b.writeUInt32LE(next(), at)
    all.push(b)
  }
  return all
}

const peak = () => Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]) * 1024

let began = 0
let used = null
let cpu = 0 // seconds of processor time, of all threads, from start to stop

function start() {
  used = process.cpuUsage()
  began = process.hrtime.bigint()
}

function stop() {
  const seconds = Number(process.hrtime.bigint() - began) / 1e9
  const { user, system } = process.cpuUsage(used)
  cpu = (user + system) / 1e6
  return seconds
}

function tell(result) {
  console.log(JSON.stringify({ ...result, cpu, peak: peak() }))
}

async function open(dir) {
  const store = new Corestore(dir, { primaryKey: Buffer.alloc(32, 7), unsafe: true })
  await store.ready()
  return store
}

async function openLog(dir, name = 'log') {
  const store = await open(dir)
  const log = store.get({ name })
  await log.ready()
  return { store, log }
}

const sumOf = async (log) => log.key.toString('hex') + ' ' + (await log.treeHash()).toString('hex')

async function append(dir, count, size, batch) {
  const { store, log } = await openLog(dir)
  const blocks = pool(size)
  start()
  for (let i = 0; i < count; ) {
    if (batch === 1) {
      await log.append(blocks[i++ % POOL])
      continue
    }
    const some = []
    while (some.length < batch && i < count) some.push(blocks[i++ % POOL])
    await log.append(some)
  }
  const seconds = stop()
  tell({ seconds, ops: count, bytes: count * size, sum: await sumOf(log) })
  await store.close()
}

async function get(dir, count, order) {
  const { store, log } = await openLog(dir)
  const next = random(2)
  let sum = 0
  let bytes = 0
  start()
  for (let i = 0; i < count; i++) {
    const block = await log.get(order === 'random' ? next() % log.length : i % log.length)
    sum = (sum + block.readUInt32LE(0)) >>> 0
    bytes += block.byteLength
  }
  tell({ seconds: stop(), ops: count, bytes, sum: String(sum) })
  await store.close()
}

// serve gives what the store has to one who calls, and ends when they hang up.
async function serve(dir) {
  const { store, log } = await openLog(dir)
  const server = net.createServer((socket) => {
    socket.setNoDelay(true)
    const stream = new SecretStream(false, socket)
    stream.on('error', () => {})
    store.replicate(stream)
    socket.on('close', async () => {
      server.close()
      tell({ seconds: 0, ops: log.length, bytes: 0, sum: await sumOf(log) })
      await store.close()
      process.exit(0)
    })
  })
  server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port, key: log.key.toString('hex') })))
}

// fetch downloads a log of the given length.
async function fetch(dir, port, key, length) {
  const store = await open(dir)
  const log = store.get({ key: Buffer.from(key, 'hex') })
  await log.ready()
  start()
  const socket = net.connect(Number(port), '127.0.0.1')
  socket.setNoDelay(true)
  const stream = new SecretStream(true, socket)
  stream.on('error', () => {})
  store.replicate(stream)
  const range = log.download({ start: 0, end: Number(length) })
  await range.done()
  const seconds = stop()
  tell({ seconds, ops: log.length, bytes: log.byteLength, sum: await sumOf(log) })
  socket.destroy()
  await store.close()
}

// sink reads messages of a bare secret-stream until it ends.
function sink(bytes) {
  const server = net.createServer((socket) => {
    const stream = new SecretStream(false, socket)
    let got = 0
    stream.on('error', () => {})
    stream.on('data', (m) => {
      if (got === 0) start()
      got += m.byteLength
      if (got < bytes) return
      tell({ seconds: stop(), ops: 0, bytes: got, sum: '' })
      process.exit(0)
    })
  })
  server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })))
}

// source writes messages to one.
async function source(port, bytes, size) {
  const stream = new SecretStream(true, net.connect(Number(port), '127.0.0.1'))
  stream.on('error', () => process.exit(0))
  await stream.opened
  const message = Buffer.alloc(size, 1)
  for (let sent = 0; sent < bytes; sent += size) {
    if (!stream.write(message)) await new Promise((resolve) => stream.once('drain', resolve))
  }
}

const keyOf = (i) => Buffer.from('key-' + String(i).padStart(8, '0'))

async function openBee(dir) {
  const { store, log } = await openLog(dir, 'bee')
  const bee = new Hyperbee(log, { keyEncoding: 'binary', valueEncoding: 'binary' })
  await bee.ready()
  return { store, log, bee }
}

async function beePut(dir, count, batch) {
  const { store, log, bee } = await openBee(dir)
  const values = pool(100)
  const next = random(3)
  start()
  if (batch === 1) {
    for (let i = 0; i < count; i++) await bee.put(keyOf(next() % (4 * count)), values[i % POOL])
  } else {
    for (let i = 0; i < count; ) {
      const b = bee.batch()
      for (let n = 0; n < batch && i < count; n++, i++) await b.put(keyOf(next() % (4 * count)), values[i % POOL])
      await b.flush()
    }
  }
  const seconds = stop()
  tell({ seconds, ops: count, bytes: 112 * count, sum: await sumOf(log) })
  await store.close()
}

// beeGet looks up keys as beePut of written entries made them.
async function beeGet(dir, count, written) {
  const { store, bee } = await openBee(dir)
  const next = random(3)
  let sum = 0
  start()
  for (let i = 0; i < count; i++) {
    const entry = await bee.get(keyOf(next() % (4 * written)))
    sum = (sum + entry.value.readUInt32LE(0)) >>> 0
  }
  tell({ seconds: stop(), ops: count, bytes: 112 * count, sum: String(sum) })
  await store.close()
}

async function beeScan(dir) {
  const { store, bee } = await openBee(dir)
  let sum = 0
  let count = 0
  start()
  for await (const entry of bee.createReadStream()) {
    sum = (sum + entry.value.readUInt32LE(0)) >>> 0
    count++
  }
  tell({ seconds: stop(), ops: count, bytes: 112 * count, sum: String(sum) })
  await store.close()
}

// mirror takes a folder into a drive; with its entries in one batch if asked,
// which is not the default.
async function mirror(dir, folder, batch) {
  const store = await open(dir)
  const drive = new Hyperdrive(store)
  await drive.ready()
  start()
  const m = new Localdrive(folder).mirror(drive, { batch: batch === 'batch' })
  await m.done()
  const seconds = stop()
  const blobs = await drive.getBlobs()
  tell({ seconds, ops: m.count.files, bytes: m.bytesAdded, sum: String(m.count.add) + ' ' + blobs.core.byteLength })
  await store.close()
}

// unmirror writes a drive out into a folder.
async function unmirror(dir, folder) {
  const store = await open(dir)
  const drive = new Hyperdrive(store)
  await drive.ready()
  start()
  const m = drive.mirror(new Localdrive(folder))
  await m.done()
  tell({ seconds: stop(), ops: m.count.files, bytes: m.bytesAdded, sum: String(m.count.add) })
  await store.close()
}

// idle opens a store, for what that takes of memory.
async function idle(dir) {
  const { store, log } = await openLog(dir)
  tell({ seconds: 0, ops: 0, bytes: 0, sum: log.key.toString('hex') })
  await store.close()
}

const [verb, ...args] = process.argv.slice(2)
const n = (i) => Number(args[i])

const verbs = {
  append: () => append(args[0], n(1), n(2), n(3)),
  get: () => get(args[0], n(1), args[2]),
  serve: () => serve(args[0]),
  fetch: () => fetch(...args),
  sink: () => sink(n(0)),
  source: () => source(args[0], n(1), n(2)),
  'bee-put': () => beePut(args[0], n(1), n(2)),
  'bee-get': () => beeGet(args[0], n(1), n(2)),
  'bee-scan': () => beeScan(args[0]),
  mirror: () => mirror(...args),
  unmirror: () => unmirror(args[0], args[1]),
  idle: () => idle(args[0])
}

async function main() {
  await verbs[verb]()
}

main().catch((err) => {
  console.error(err.stack)
  process.exit(1)
})
