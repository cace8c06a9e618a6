package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"net"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/pion/dtls/v2/pkg/crypto/selfsign"
	"github.com/pion/turn/v2"
)

const answerTimeout = 5 * time.Second

// runClient shakes hands with -peer, directly or over an allocation at -turn, then sends -count
// payloads and waits for each to come back. -turn takes -user and -pass, and -transport udp or tcp.
func runClient(flags *flag.FlagSet, arguments []string) error {
	peer := flags.String("peer", "", "address of the DTLS server")
	relay := flags.String("turn", "", "address of the TURN server; without it the peer is dialled")
	transport := flags.String("transport", "udp", "how to reach the TURN server: udp or tcp")
	user := flags.String("user", "", "username at the TURN server")
	password := flags.String("pass", "", "password at the TURN server")
	count := flags.Int("count", 10, "payloads to exchange")
	size := flags.Int("size", 1000, "bytes of each payload")
	timeout := flags.Duration("timeout", 20*time.Second, "for the handshake")
	ems := flags.String("ems", "require", "extended master secret: require or disable")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	secret, err := extendedMasterSecret(*ems)
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", *peer)
	if err != nil {
		return err
	}
	var path net.Conn
	if *relay == "" {
		path, err = net.DialUDP("udp", nil, address)
	} else {
		path, err = allocate(*relay, *transport, *user, *password, address)
	}
	if err != nil {
		return err
	}
	defer path.Close()

	certificate, err := selfsign.GenerateSelfSigned()
	if err != nil {
		return err
	}
	config := &dtls.Config{
		InsecureSkipVerify:   true,
		CipherSuites:         []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		ExtendedMasterSecret: secret,
	}
	config.Certificates = append(config.Certificates, certificate)
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	conn, err := dtls.ClientWithContext(ctx, path, config)
	if err != nil {
		return err
	}
	report(Report{
		Event:    "connected",
		Address:  path.LocalAddr().String(),
		Exported: exported(conn),
	})
	for number := 0; number < *count; number++ {
		if err := exchange(conn, *size); err != nil {
			return fmt.Errorf("payload %d: %w", number, err)
		}
	}
	report(Report{Event: "done", Returned: *count})
	return conn.Close()
}

func exchange(conn net.Conn, size int) error {
	payload := make([]byte, size)
	if _, err := rand.Read(payload); err != nil {
		return err
	}
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	answer := make([]byte, bufferSize)
	length, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if !bytes.Equal(answer[:length], payload) {
		return fmt.Errorf("%d bytes came back that are not those that were sent", length)
	}
	return nil
}

// relayed is a path to one peer over an allocation.
type relayed struct {
	net.PacketConn
	peer   net.Addr
	client *turn.Client
	base   net.PacketConn
}

func allocate(relay, transport, user, password string, peer net.Addr) (net.Conn, error) {
	var base net.PacketConn
	switch transport {
	case "udp":
		conn, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return nil, err
		}
		base = conn
	case "tcp":
		conn, err := net.Dial("tcp", relay)
		if err != nil {
			return nil, err
		}
		base = turn.NewSTUNConn(conn)
	default:
		return nil, fmt.Errorf("-transport is udp or tcp, not %q", transport)
	}
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: relay,
		TURNServerAddr: relay,
		Username:       user,
		Password:       password,
		Conn:           base,
	})
	if err != nil {
		return nil, err
	}
	if err := client.Listen(); err != nil {
		return nil, err
	}
	allocation, err := client.Allocate()
	if err != nil {
		return nil, err
	}
	report(Report{Event: "allocated", Relayed: allocation.LocalAddr().String()})
	return &relayed{allocation, peer, client, base}, nil
}

func (r *relayed) Read(buffer []byte) (int, error) {
	for {
		size, from, err := r.ReadFrom(buffer)
		if err != nil || from.String() == r.peer.String() {
			return size, err
		}
	}
}

func (r *relayed) Write(data []byte) (int, error) { return r.WriteTo(data, r.peer) }

func (r *relayed) RemoteAddr() net.Addr { return r.peer }

func (r *relayed) Close() error {
	err := r.PacketConn.Close()
	r.client.Close()
	_ = r.base.Close()
	return err
}
