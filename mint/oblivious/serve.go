package oblivious

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

const (
	maxConns  = 4096
	maxHeader = 16 << 10 // bytes

	headerTime = 10 * time.Second // the TLS handshake included
	bodyTime   = 30 * time.Second
	idleTime   = 30 * time.Second
	endTime    = 10 * time.Second
)

// Serve answers on a listener until ctx ends, and waits for what is on its way. It
// speaks TLS by a certificate, and logs nothing: all that it could would be who asked
// when.
func (l *Relay) Serve(ctx context.Context, listener net.Listener, cert tls.Certificate) error {
	server := &http.Server{
		Handler: l,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
			SessionTicketsDisabled: true, // they would tell that two connections are one wallet's
		},
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       headerTime + bodyTime,
		WriteTimeout:      headerTime + bodyTime + relayTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(netutil.LimitListener(listener, maxConns), "", "") }()
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-served:
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if server.Shutdown(ending) != nil {
		err = errors.Join(err, server.Close())
	}
	return err
}
