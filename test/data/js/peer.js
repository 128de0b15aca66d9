// A peer for the tests of data/: the JavaScript originals behind a line of JSON
// for each question, and one for each answer.
//
//   {"id":1,"op":"append","on":"log","blocks":["aGk="]}
//   {"id":1,"value":{"length":1}}     or  {"id":1,"error":"..."}
//
// Keys are hex, blocks and values base64. What is opened gets a name ("as"), by
// which later questions mean it ("on"). Questions are answered as they get done:
// one that waits holds up no other. The peer ends with its standard input.
'use strict'
const net = require('net')
const readline = require('readline')
const Corestore = require('corestore')
const Hypercore = require('hypercore')
const Hyperbee = require('hyperbee')
const Hyperdrive = require('hyperdrive')
const Localdrive = require('localdrive')
const SecretStream = require('@hyperswarm/secret-stream')
const crypto = require('hypercore-crypto')
const c = require('compact-encoding')
const { Extension } = require('hyperbee/lib/messages')
const multisig = require('hypercore/lib/multisig')

const things = new Map() // what was opened, by name
const heard = new Map() // extension messages, by "core extension"
const sockets = new Set()
const servers = new Set()

const hex = (b) => (b ? b.toString('hex') : null)
const unhex = (s) => (s ? Buffer.from(s, 'hex') : undefined)
const b64 = (b) => (b === null || b === undefined ? null : Buffer.from(b).toString('base64'))
const unb64 = (s) => (s === null || s === undefined ? null : Buffer.from(s, 'base64'))

function on(q) {
  const thing = things.get(q.on)
  if (!thing) throw new Error('nothing is called ' + q.on)
  return thing
}

function keep(q, thing) {
  if (things.has(q.as)) throw new Error(q.as + ' is taken')
  things.set(q.as, thing)
  return thing
}

// until calls f after each of the events until it says something.
function until(emitter, events, f) {
  return new Promise((resolve, reject) => {
    let busy = false
    const timer = setInterval(look, 50) // for what no event tells
    for (const e of events) emitter.on(e, look)
    look()
    async function look() {
      if (busy) return
      busy = true
      try {
        const found = await f()
        if (found) end(resolve, found)
      } catch (err) {
        end(reject, err)
      }
      busy = false
    }
    function end(how, what) {
      clearInterval(timer)
      for (const e of events) emitter.off(e, look)
      how(what)
    }
  })
}

function manifest(m) {
  if (!m) return undefined
  return {
    version: m.version,
    quorum: m.quorum,
    allowPatch: m.allowPatch,
    signers: (m.signers || []).map((s) => ({ publicKey: unhex(s.publicKey), namespace: unhex(s.namespace) })),
    prologue: m.prologue && { hash: unhex(m.prologue.hash), length: m.prologue.length },
    linked: m.linked && m.linked.map(unhex),
    userData: m.userData ? unb64(m.userData) : undefined
  }
}

function describe(core) {
  return {
    key: hex(core.key),
    discoveryKey: hex(core.discoveryKey),
    length: core.length,
    byteLength: core.byteLength,
    fork: core.fork,
    contiguous: core.contiguousLength,
    writable: core.writable,
    signature: b64(core.state && core.state.signature)
  }
}

// cosign signs what the core will be with the blocks appended, by the key pairs
// of the seeds, and puts their signatures together.
async function cosign(core, blocks, seeds) {
  const batch = core.state.createTreeBatch()
  for (const b of blocks) batch.append(b)
  const signers = core.manifest.signers
  const parts = seeds.map((seed) => {
    const pair = crypto.keyPair(unhex(seed))
    const signer = signers.findIndex((s) => s.publicKey.equals(pair.publicKey))
    const context = core.manifest.version === 0 ? signers[signer].namespace : core.key
    return { signer, signature: crypto.sign(batch.signable(context), pair.secretKey), patch: 0, nodes: null }
  })
  return core.manifest.version === 0 ? multisig.assemblev0(parts) : multisig.assemble(parts)
}

const entry = (e) => (e ? { seq: e.seq, key: b64(e.key), value: b64(e.value) } : null)

function range(q) {
  const r = { reverse: !!q.reverse, limit: q.limit === undefined ? -1 : q.limit }
  for (const bound of ['gt', 'gte', 'lt', 'lte']) if (q[bound] !== undefined) r[bound] = unb64(q[bound])
  return r
}

const fileOf = (e) => ({
  seq: e.seq,
  path: e.key,
  executable: e.value.executable,
  linkname: e.value.linkname,
  blob: e.value.blob,
  metadata: e.value.metadata
})

// whole reads a drive's file with its own readers.
async function whole(drive, path, opts) {
  const parts = []
  for await (const part of drive.createReadStream(path, opts)) parts.push(part)
  return Buffer.concat(parts)
}

function plugIn(q, socket, initiator) {
  const stream = new SecretStream(initiator, socket)
  stream.on('error', () => {})
  stream.on('close', () => socket.destroy())
  socket.on('error', () => {})
  socket.setNoDelay(true)
  sockets.add(socket)
  socket.on('close', () => sockets.delete(socket))
  for (const name of q.on) things.get(name).replicate(stream)
  return stream
}

const ops = {
  async store(q) {
    const primaryKey = unhex(q.primaryKey)
    const s = keep(q, new Corestore(q.dir, primaryKey ? { primaryKey, unsafe: true } : {}))
    await s.ready()
    return { primaryKey: hex(s.primaryKey) }
  },

  async namespace(q) {
    await keep(q, on(q).namespace(q.name)).ready()
  },

  // core opens one of a store: by name, by key, by manifest or by key pair.
  async core(q) {
    const opts = { name: q.name, key: unhex(q.key), manifest: manifest(q.manifest), encryptionKey: unhex(q.encryptionKey) }
    if (q.seed) opts.keyPair = crypto.keyPair(unhex(q.seed))
    const core = keep(q, on(q).get(opts))
    await core.ready()
    return describe(core)
  },

  // log opens one alone, in a directory.
  async log(q) {
    const opts = { compat: q.compat, manifest: manifest(q.manifest), encryptionKey: unhex(q.encryptionKey) }
    if (q.seed) opts.keyPair = crypto.keyPair(unhex(q.seed))
    const core = keep(q, new Hypercore(q.dir, unhex(q.key), opts))
    await core.ready()
    return describe(core)
  },

  async info(q) {
    return describe(on(q))
  },

  // state is what helps to find out why a log does not come.
  async state(q) {
    const core = on(q)
    const peers = core.core.replicator.peers.map((p) => ({
      remote: [p.remoteFork, p.remoteLength, p.remoteContiguousLength],
      synced: [p.remoteSynced, p.canUpgrade, p.syncsProcessing],
      inflight: p.inflight
    }))
    const { _reorgs, _applyingReorg, _ranges, _upgrade } = core.core.replicator
    const reorgs = _reorgs.map((r) => ({ fork: r.fork, inflight: r.inflight.length, done: r.batch && r.batch.finished }))
    return { ...describe(core), peers, reorgs, applying: !!_applyingReorg, ranges: _ranges.length, upgrade: !!_upgrade }
  },

  async append(q) {
    const core = on(q)
    const blocks = q.blocks.map(unb64)
    const signature = q.seeds ? await cosign(core, blocks, q.seeds) : null
    await core.append(blocks, signature ? { signature } : undefined)
    return describe(core)
  },

  // fill appends count blocks that say which they are, in batches.
  async fill(q) {
    const core = on(q)
    for (let i = 0; i < q.count; ) {
      const blocks = []
      for (; i < q.count && blocks.length < q.batch; i++) blocks.push(Buffer.from(q.prefix + core.length + '+' + blocks.length))
      await core.append(blocks)
    }
    return describe(core)
  },

  async get(q) {
    const block = await on(q).get(q.index, { timeout: q.timeout, wait: q.wait, raw: q.raw })
    return { block: b64(block) }
  },

  async blocks(q) {
    const blocks = []
    for (let i = q.start; i < q.end; i++) blocks.push(b64(await on(q).get(i)))
    return { blocks }
  },

  async treeHash(q) {
    return { hash: hex(await on(q).treeHash(q.length)) }
  },

  async has(q) {
    return { has: await on(q).has(q.start, q.end) }
  },

  async seek(q) {
    return { at: await on(q).seek(q.bytes, { timeout: q.timeout }) }
  },

  async clear(q) {
    await on(q).clear(q.start, q.end)
  },

  async truncate(q) {
    const core = on(q)
    await core.truncate(q.length, q.fork === undefined ? {} : { fork: q.fork })
    return describe(core)
  },

  async update(q) {
    const core = on(q)
    await core.update({ wait: true })
    return describe(core)
  },

  async download(q) {
    await on(q).download({ start: q.start, end: q.end, linear: !!q.linear }).done()
  },

  // follow downloads whatever the core has and gets.
  async follow(q) {
    on(q).download({ start: 0, end: -1 })
  },

  // wait is for a length on a fork, and for all blocks if asked.
  async wait(q) {
    const core = on(q)
    await until(core, ['append', 'truncate', 'download'], () => {
      if (core.length !== q.length || (q.fork !== undefined && core.fork !== q.fork)) return false
      return !q.all || core.contiguousLength === q.length
    })
    return describe(core)
  },

  async snapshot(q) {
    const s = keep(q, on(q).snapshot())
    await s.ready()
    return describe(s)
  },

  async byteStream(q) {
    const parts = []
    for await (const part of on(q).createByteStream({ byteOffset: q.start, byteLength: q.bytes })) parts.push(part)
    return { block: b64(Buffer.concat(parts)) }
  },

  async staticify(q) {
    const core = keep(q, await things.get(q.store).staticify(on(q)))
    return describe(core)
  },

  async bee(q) {
    const bee = keep(q, new Hyperbee(on(q), { keyEncoding: 'binary', valueEncoding: 'binary' }))
    await bee.ready()
    return { version: bee.version }
  },

  async sub(q) {
    keep(q, on(q).sub(q.name))
  },

  async checkout(q) {
    keep(q, on(q).checkout(q.version))
  },

  async version(q) {
    return { version: on(q).version }
  },

  async put(q) {
    const bee = on(q)
    await bee.put(unb64(q.key), unb64(q.value))
    return { version: bee.version }
  },

  async del(q) {
    const bee = on(q)
    await bee.del(unb64(q.key))
    return { version: bee.version }
  },

  // batch has entries; one without a value is deleted.
  async batch(q) {
    const bee = on(q)
    const b = bee.batch()
    for (const e of q.entries) {
      if (e.value === undefined || e.value === null) await b.del(unb64(e.key))
      else await b.put(unb64(e.key), unb64(e.value))
    }
    await b.flush()
    return { version: bee.version }
  },

  async lookup(q) {
    return { entry: entry(await on(q).get(unb64(q.key))) }
  },

  async entries(q) {
    const entries = []
    for await (const e of on(q).createReadStream(range(q))) entries.push(entry(e))
    return { entries }
  },

  async history(q) {
    const entries = []
    for await (const e of on(q).createHistoryStream(q.reverse ? { reverse: true } : {})) entries.push({ ...entry(e), type: e.type })
    return { entries }
  },

  async diff(q) {
    const changes = []
    for await (const d of on(q).createDiffStream(q.version, range(q))) changes.push({ left: entry(d.left), right: entry(d.right) })
    return { changes }
  },

  // waitBee is for a version.
  async waitBee(q) {
    const bee = on(q)
    await until(bee.core, ['append', 'truncate'], () => bee.version === q.version)
    return { version: bee.version }
  },

  async drive(q) {
    const drive = keep(q, new Hyperdrive(on(q), unhex(q.key), { encryptionKey: unhex(q.encryptionKey) }))
    await drive.ready()
    if (drive.writable) await drive.getBlobs()
    return { key: hex(drive.key), contentKey: hex(drive.contentKey), version: drive.version }
  },

  async putFile(q) {
    const drive = on(q)
    await drive.put(q.path, unb64(q.data), { executable: !!q.executable, metadata: q.metadata === undefined ? null : q.metadata })
    return { version: drive.version }
  },

  async getFile(q) {
    return { block: b64(await on(q).get(q.path)) }
  },

  async readFile(q) {
    return { block: b64(await whole(on(q), q.path, { start: q.start, end: q.end })) }
  },

  async removeFile(q) {
    const drive = on(q)
    await drive.del(q.path)
    return { version: drive.version }
  },

  async symlink(q) {
    const drive = on(q)
    await drive.symlink(q.path, q.target)
    return { version: drive.version }
  },

  async file(q) {
    const e = await on(q).entry(q.path, { follow: !!q.follow })
    return { file: e ? fileOf(e) : null }
  },

  async files(q) {
    const files = []
    for await (const e of on(q).list(q.path)) files.push(fileOf(e))
    return { files }
  },

  async names(q) {
    const names = []
    for await (const name of on(q).readdir(q.path)) names.push(name)
    return { names }
  },

  async driveDiff(q) {
    const changes = []
    for await (const d of on(q).diff(q.version, q.path)) {
      changes.push({ left: d.left ? fileOf(d.left) : null, right: d.right ? fileOf(d.right) : null })
    }
    return { changes }
  },

  async mirrorIn(q) {
    const drive = on(q)
    const m = new Localdrive(q.dir).mirror(drive)
    await m.done()
    return { ...m.count, version: drive.version }
  },

  async mirrorOut(q) {
    const m = on(q).mirror(new Localdrive(q.dir))
    await m.done()
    return m.count
  },

  async waitDrive(q) {
    const drive = on(q)
    await until(drive.core, ['append', 'truncate'], () => drive.version === q.version)
    await drive.getBlobs()
    return { version: drive.version, contentKey: hex(drive.contentKey) }
  },

  async listen(q) {
    const server = net.createServer((socket) => plugIn(q, socket, false))
    servers.add(server)
    await new Promise((resolve, reject) => server.on('error', reject).listen(0, '127.0.0.1', resolve))
    return { port: server.address().port }
  },

  async connect(q) {
    const socket = net.connect(q.port, '127.0.0.1')
    const stream = plugIn(q, socket, true)
    const opened = await stream.opened
    if (!opened) throw new Error('the connection ended before it was open')
    return { remote: hex(stream.remotePublicKey) }
  },

  // keepConnected connects, and again whenever the connection is lost.
  async keepConnected(q) {
    const again = () => {
      const socket = net.connect(q.port, '127.0.0.1')
      plugIn(q, socket, true)
      socket.on('close', () => setTimeout(again, 20))
    }
    again()
  },

  async connections() {
    return { connections: sockets.size }
  },

  async disconnect() {
    for (const s of sockets) s.destroy()
  },

  // hints asks what the original's bees ask of each other, and returns which
  // blocks it is told of, when there are as many.
  async hints(q) {
    const core = on(q)
    const told = new Set()
    const ext = core.registerExtension('hyperbee', {
      onmessage: (m) => Extension.decode(m).cache.blocks.forEach((i) => told.add(i))
    })
    const range = q.range && { limit: 0, ...q.range }
    for (const bound of ['gt', 'gte', 'lt', 'lte']) if (range && range[bound]) range[bound] = unb64(range[bound])
    ext.broadcast(Extension.encode(range ? { iterator: range } : { get: { version: q.version, key: unb64(q.key) } }))
    await until(core, [], () => told.size >= q.count)
    ext.destroy()
    return { blocks: [...told].sort((a, b) => a - b) }
  },

  async extension(q) {
    const core = on(q)
    const box = []
    heard.set(q.on + ' ' + q.name, box)
    const ext = core.registerExtension(q.name, { encoding: c.raw, onmessage: (m) => box.push(b64(m)) })
    keep({ as: q.on + ' ' + q.name }, ext)
  },

  async broadcast(q) {
    things.get(q.on + ' ' + q.name).broadcast(unb64(q.data))
  },

  async received(q) {
    const box = heard.get(q.on + ' ' + q.name)
    await until(on(q), [], () => box.length >= q.count)
    return { blocks: box }
  },

  async peers(q) {
    const core = on(q)
    await until(core, ['peer-add', 'peer-remove'], () => core.peers.length >= q.count)
    return { peers: core.peers.length }
  },

  async close(q) {
    await on(q).close()
    things.delete(q.on)
  },

  async versions() {
    return { node: process.version, rss: process.memoryUsage().rss }
  }
}

async function answer(line) {
  const q = JSON.parse(line)
  let said
  try {
    if (!ops[q.op]) throw new Error('no operation ' + q.op)
    said = { id: q.id, value: (await ops[q.op](q)) || {} }
  } catch (err) {
    said = { id: q.id, error: err.stack || String(err) }
  }
  process.stdout.write(JSON.stringify(said) + '\n')
}

readline.createInterface({ input: process.stdin }).on('line', answer).on('close', () => process.exit(0))
