'use strict'

// The node image's service: it answers with JSON, and remembers what it was told.

const express = require('express')

const app = express()
const notes = {}

app.use(express.json())
app.get('/', (req, res) => res.json({ hello: 'from node', version: process.version, pid: process.pid }))
app.get('/notes', (req, res) => res.json(notes))
app.put('/notes/:name', (req, res) => {
  notes[req.params.name] = req.body
  res.json({ kept: req.params.name })
})

const server = app.listen(3000, '::', () => console.log('node listens'))

process.on('SIGTERM', () => server.close(() => process.exit(0)))
