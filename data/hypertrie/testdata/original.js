// Runs hypertrie 5.1.3 over a hypercore 11, for the tests: they compare what it
// answers, and every block of its log.
//
//	NODE_PATH=.../node_modules node original.js FOLDER OPTIONS < steps
//
// A step is a line of JSON; to each there is a line that answers. The blocks of
// the log come last. hypertrie was made for hypercore 9, whose interface has
// callbacks; feed gives it that.
const readline = require('readline')
const Hypercore = require('hypercore')
const hypertrie = require('hypertrie')

const options = JSON.parse(process.argv[3] || '{}')

function feed (core) {
  const handlers = []
  const done = (p, cb) => p.then((v) => process.nextTick(cb, null, v), (err) => process.nextTick(cb, err))
  return {
    get length () { return core.length },
    get writable () { return core.writable },
    key: core.key,
    ready: (cb) => done(core.ready(), cb),
    on: (name, fn) => handlers.push([name, fn]),
    registerExtension: () => ({ broadcast () {}, send () {} }),
    get: (seq, opts, cb) => done(core.get(seq), cb || opts),
    has: (seq) => core.has(seq),
    update: (opts, cb) => process.nextTick(cb, null),
    append: (blocks, cb) => done(core.append(blocks), (err) => {
      if (!err) for (const [name, fn] of handlers) if (name === 'append') fn()
      cb(err)
    })
  }
}

// Tests ask for hashes that collide: the last letter of each part makes one.
function collide (key) {
  const parts = key.split('/').filter((p, i, all) => p !== '' || (i > 0 && i < all.length - 1))
  return Buffer.concat(parts.map((p) => Buffer.alloc(8, p.length ? p.charCodeAt(p.length - 1) & 3 : 0)))
}

const promise = (fn) => new Promise((resolve, reject) => fn((err, v) => err ? reject(err) : resolve(v)))
const entry = (n) => n && { seq: n.seq, key: n.key, value: n.value ? n.value.toString('hex') : n.value, flags: n.flags }
const value = (s) => s === null || s === undefined ? null : Buffer.from(s, 'hex')

async function all (ite, map) {
  const out = []
  while (true) {
    const v = await promise((cb) => ite.next(cb))
    if (!v) return out
    out.push(map(v))
  }
}

async function run (db, s) {
  const at = s.version ? db.checkout(s.version) : db
  switch (s.op) {
    case 'put': return void await promise((cb) => db.put(s.key, value(s.value), { flags: s.flags, hidden: s.hidden }, cb))
    case 'del': return void await promise((cb) => db.del(s.key, { hidden: s.hidden }, cb))
    case 'batch': return void await promise((cb) => db.batch(s.ops.map((o) => ({ type: o.op, key: o.key, value: value(o.value), flags: o.flags, hidden: o.hidden })), cb))
    case 'get': return entry(await promise((cb) => at.get(s.key, { hidden: s.hidden }, cb)))
    case 'list': return all(at.iterator(s.key, { recursive: !s.shallow, reverse: s.reverse, gt: s.below, hidden: s.hidden }), entry)
    case 'diff': return (await all(at.diff(s.other, s.key, { hidden: s.hidden }), (d) => [entry(d.left), entry(d.right)])).sort((a, b) => order(a) < order(b) ? -1 : 1)
    case 'history': return all(at.history({ reverse: s.reverse }), entry)
    case 'length': return db.version
  }
  throw new Error('unknown ' + s.op)
}

const order = ([l, r]) => (l || r).key

async function main () {
  const core = new Hypercore(process.argv[2])
  await core.ready()
  const db = hypertrie(null, null, {
    feed: feed(core),
    extension: false,
    hash: options.collide ? collide : null,
    metadata: options.metadata ? Buffer.from(options.metadata) : null,
    subtype: options.subtype
  })
  await promise((cb) => db.ready(cb))
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const out = await run(db, JSON.parse(line))
    console.log(JSON.stringify(out === undefined ? null : out))
  }
  for (let i = 0; i < core.length; i++) console.log('block ' + (await core.get(i)).toString('hex'))
  await core.close()
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
