// Command pion is the other side of Turnlane's interop tests: a DTLS server and a DTLS client made
// with pion, set as the Go programs set it that Turnlane is compatible with. Both report in JSON,
// one object a line, on standard output, and end when standard input does.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/pion/dtls/v2"
)

const (
	exportLabel = "EXPORTER-interop"
	exportSize  = 32

	// The programs' own buffers have this size.
	bufferSize = 1600
)

// Report is one line of output. Fields that do not apply are left out.
type Report struct {
	Event    string `json:"event"`
	Address  string `json:"address,omitempty"`
	Pin      string `json:"pin,omitempty"`
	Exported string `json:"exported,omitempty"`
	Relayed  string `json:"relayed,omitempty"`
	Returned int    `json:"returned,omitempty"`
	Error    string `json:"error,omitempty"`
}

var output sync.Mutex

func report(r Report) {
	output.Lock()
	defer output.Unlock()
	line, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func extendedMasterSecret(name string) (dtls.ExtendedMasterSecretType, error) {
	switch name {
	case "require":
		return dtls.RequireExtendedMasterSecret, nil
	case "disable":
		return dtls.DisableExtendedMasterSecret, nil
	}
	return 0, fmt.Errorf("-ems is require or disable, not %q", name)
}

func exported(conn *dtls.Conn) string {
	state := conn.ConnectionState()
	key, err := state.ExportKeyingMaterial(exportLabel, nil, exportSize)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%x", key)
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: pion server|client [options]")
		os.Exit(2)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	var err error
	switch flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError); os.Args[1] {
	case "server":
		err = runServer(flags, os.Args[2:])
	case "client":
		err = runClient(flags, os.Args[2:])
	default:
		err = fmt.Errorf("no command %q", os.Args[1])
	}
	if err != nil {
		report(Report{Event: "failed", Error: err.Error()})
		os.Exit(1)
	}
}
