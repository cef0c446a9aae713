// SPDX-License-Identifier: Apache-2.0

// Command traffic is the pair of programs between which the end-to-end tests
// have data flow: "traffic serve" and "traffic connect" keep TCP connections busy
// and check every byte that arrives. Every eight bytes of a stream say which
// connection and direction they belong to and at which position they are, so that
// lost, repeated and corrupt bytes can be told apart.
//
// A program keeps its counters in shared memory (package stats), and writes to
// its log, a JSON object per line, only when something is wrong and at its end.
// SIGUSR1 stops all sending for good; SIGUSR2 stops that of flows with nap until
// the next SIGUSR2; SIGTERM ends the program.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// beat is the usual time between two ticks of an idle program.
const beat = time.Millisecond

// program is what all connections of one process share.
type program struct {
	stats  *stats.File
	log    eventLog
	quiet  atomic.Bool // SIGUSR1: nothing more is sent
	naps   atomic.Bool // SIGUSR2, until the next one: flows with nap send nothing
	ending atomic.Bool // SIGTERM: errors are caused by our own end

	keepAlive time.Duration // between the probes of an idle connection; 0 is as usual
}

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("the first argument must be serve or connect; see --help")
	}
	flags := flag.NewFlagSet("traffic "+args[0], flag.ContinueOnError)
	statsPath := flags.String("stats", "", "`FILE` of counters to create")
	logPath := flags.String("log", "", "`FILE` to append events to (default standard error)")
	pause := flags.Duration("beat", beat, "`TIME` between two ticks")
	busy := flags.Bool("busy", false, "tick without a pause, which keeps one processor busy")
	var addrs, conns list
	var firstID uint
	var keepAlive time.Duration
	var start func(*program) error
	switch args[0] {
	case "serve":
		flags.Var(&addrs, "listen", "`ADDRESS:PORT` to serve on, TCP and UDP (may be given again)")
		start = func(p *program) error { return p.serve(addrs) }
	case "connect":
		flags.Var(&addrs, "peer", "`ADDRESS:PORT` to connect to (may be given again)")
		flags.Var(&conns, "conn", "`KIND[=N][,size=BYTES][,interval=D][,half][,nap][,slow]` to open to each peer (may be given again).\n"+
			"KIND: push, pull, reqrep, bulk, udp. half: the side that sends nothing says so. nap: SIGUSR2 interrupts it.\n"+
			"slow: the receiver takes its time, and all buffers are full")
		flags.UintVar(&firstID, "first-id", 0, "`NUMBER` of the first connection")
		flags.DurationVar(&keepAlive, "keep-alive", 0, "`TIME`, in whole seconds, after which an idle connection is probed; it ends with the eighth probe in vain")
		start = func(p *program) error { return p.connect(addrs, conns, firstID) }
	default:
		return fmt.Errorf("%q is neither serve nor connect", args[0])
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if len(addrs) == 0 || *statsPath == "" || flags.NArg() > 0 {
		return errors.New("an address and --stats are required, and there are no further arguments; see --help")
	}
	// Before anything else, so that no signal ends the program.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM)
	file, err := stats.Create(*statsPath)
	if err != nil {
		return err
	}
	p := &program{stats: file, log: eventLog{path: *logPath}, keepAlive: keepAlive}
	go p.tick(*busy, *pause)
	if err := start(p); err != nil {
		return err
	}
	p.obey(signals)
	return nil
}

// obey handles signals, and returns when the program is to end.
func (p *program) obey(signals <-chan os.Signal) {
	for s := range signals {
		switch s {
		case syscall.SIGTERM:
			p.ending.Store(true)
			p.log.summary(p.stats.Snapshots())
			return
		case syscall.SIGUSR1:
			p.quiet.Store(true)
		case syscall.SIGUSR2:
			p.naps.Store(!p.naps.Load())
		}
	}
}

// tick shows that the program runs. When busy, it ticks without a pause.
func (p *program) tick(busy bool, pause time.Duration) {
	for {
		p.stats.Tick()
		if !busy {
			time.Sleep(pause)
		}
	}
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

// Set adds a value.
func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// port returns an address's port, 0 if it has none.
func port(a net.Addr) uint16 {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Port()
	case *net.UDPAddr:
		return a.AddrPort().Port()
	}
	return 0
}
