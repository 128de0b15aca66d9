// Core is a guest that keeps the contract between a center and a pal's core,
// and does nothing else: it is locked when it boots, unlocks for whoever first
// unlocked its volume, and keeps what it was unlocked with nowhere but in
// memory. Tests of the center run it where the core itself is not what is
// tested.
//
// Over TCP :7460 it serves GET /v1/lock and POST /v1/unlock, and for tests
//
//	GET /v1/who         a random text, made when it boots
//	GET /v1/reach?addr  "yes" or "no": whether it can open a TCP connection
//
// What comes to UDP :51820, where a core has its WireGuard, goes back.
package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// device is the pal's volume.
const device = "/dev/pal"

// mark begins a volume that was used before.
var mark = []byte("a pal's volume\n")

type core struct {
	mu       sync.Mutex
	key      hpke.PrivateKey
	unlocked bool
	boot     string // random, one for each
}

func main() {
	key, err := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	boot := make([]byte, 8)
	rand.Read(boot)
	c := &core{key: key, boot: hex.EncodeToString(boot)}
	http.HandleFunc("GET /v1/lock", c.lock)
	http.HandleFunc("POST /v1/unlock", c.unlock)
	http.HandleFunc("GET /v1/who", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, c.boot) })
	http.HandleFunc("GET /v1/reach", reach)
	packets, err := net.ListenPacket("udp", ":51820")
	if err != nil {
		log.Fatal(err)
	}
	go echo(packets)
	fmt.Println("the core listens")
	log.Fatal(http.ListenAndServe(":7460", nil))
}

func echo(packets net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := packets.ReadFrom(buf)
		if err != nil {
			log.Fatal(err)
		}
		packets.WriteTo(buf[:n], from)
	}
}

func reach(w http.ResponseWriter, r *http.Request) {
	conn, err := net.DialTimeout("tcp", r.FormValue("addr"), 2*time.Second)
	if err != nil {
		io.WriteString(w, "no")
		return
	}
	conn.Close()
	io.WriteString(w, "yes")
}

func (c *core) lock(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := map[string]any{"locked": !c.unlocked, "attestation": map[string]string{"kind": "none"}}
	if !c.unlocked {
		answer["key"] = c.key.PublicKey().Bytes()
	}
	json.NewEncoder(w).Encode(answer)
}

func (c *core) unlock(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unlocked {
		w.WriteHeader(http.StatusConflict)
		return
	}
	sealed, err := io.ReadAll(io.LimitReader(r.Body, 2<<20))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	secret, err := hpke.Open(c.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), nil, sealed)
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	switch ok, err := opens(secret); {
	case err != nil:
		log.Print(err)
		w.WriteHeader(http.StatusInternalServerError)
	case !ok:
		w.WriteHeader(http.StatusForbidden)
	default:
		c.unlocked = true
		w.WriteHeader(http.StatusNoContent)
	}
}

// opens reports whether the secret is the volume's. An unused volume becomes
// the secret's.
func opens(secret []byte) (bool, error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := sha256.Sum256(secret)
	want := append(bytes.Clone(mark), sum[:]...)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(f, got); err != nil {
		return false, err
	}
	if bytes.Equal(got, make([]byte, len(got))) {
		if _, err := f.WriteAt(want, 0); err != nil {
			return false, err
		}
		return true, f.Sync()
	}
	return bytes.Equal(got, want), nil
}
