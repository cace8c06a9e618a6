package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"flag"
	"net"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/pion/dtls/v2/pkg/crypto/selfsign"
)

const handshakeTimeout = 30 * time.Second

// runServer accepts associations and sends each payload back, or on to an upstream of its own with
// -forward, one datagram per record, as the programs do.
func runServer(flags *flag.FlagSet, arguments []string) error {
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on")
	forward := flags.String("forward", "", "upstream; without it payloads are sent back")
	ems := flags.String("ems", "require", "extended master secret: require or disable")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	secret, err := extendedMasterSecret(*ems)
	if err != nil {
		return err
	}
	certificate, err := selfsign.GenerateSelfSigned()
	if err != nil {
		return err
	}
	parsed, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", *listen)
	if err != nil {
		return err
	}
	config := &dtls.Config{
		CipherSuites: []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		ConnectContextMaker: func() (context.Context, func()) {
			return context.WithTimeout(context.Background(), handshakeTimeout)
		},
		ExtendedMasterSecret: secret,
	}
	config.Certificates = append(config.Certificates, certificate)
	listener, err := dtls.Listen("udp", address, config)
	if err != nil {
		return err
	}
	pin := sha256.Sum256(parsed.RawSubjectPublicKeyInfo)
	report(Report{
		Event:   "listening",
		Address: listener.Addr().String(),
		Pin:     base64.RawURLEncoding.EncodeToString(pin[:]),
	})
	for {
		conn, err := listener.Accept()
		if err != nil {
			report(Report{Event: "refused", Error: err.Error()})
			continue
		}
		go serve(conn.(*dtls.Conn), *forward)
	}
}

func serve(conn *dtls.Conn, forward string) {
	address := conn.RemoteAddr().String()
	report(Report{Event: "accepted", Address: address, Exported: exported(conn)})
	var err error
	if forward == "" {
		err = echo(conn)
	} else {
		err = pipe(conn, forward)
	}
	_ = conn.Close()
	report(Report{Event: "closed", Address: address, Error: err.Error()})
}

func echo(conn net.Conn) error {
	return copyDatagrams(conn, conn)
}

func pipe(conn net.Conn, forward string) error {
	upstream, err := net.Dial("udp", forward)
	if err != nil {
		return err
	}
	defer upstream.Close()
	go func() {
		_ = copyDatagrams(conn, upstream)
		_ = conn.Close()
	}()
	return copyDatagrams(upstream, conn)
}

func copyDatagrams(to, from net.Conn) error {
	buffer := make([]byte, bufferSize)
	for {
		size, err := from.Read(buffer)
		if err != nil {
			return err
		}
		if _, err := to.Write(buffer[:size]); err != nil {
			return err
		}
	}
}
