// Package hypercore is a signed append-only log, byte for byte that of the
// JavaScript module hypercore 11.
package hypercore
