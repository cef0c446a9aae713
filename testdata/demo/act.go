// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// live is how long an address is on the network before CRIU starts to restore
// the task that had it: about as long as a node takes to set up a pod.
const live = 2 * time.Second

// act is one run of the story.
type act struct {
	name, about   string
	withNetfreeze bool // with criu-netfreeze
	cutFirst      bool // the old host's link is cut before the server is stopped

	screen     *screen
	dir        string // images, counters and logs
	app, peer  *host  // of the server, and of the client
	server     *traffic
	client     *traffic
	capture    *capture
	beforeStop []stats.Snapshot // the server's counters when it was stopped
	thawed     time.Time        // when the network was thawed, or the server restored without a freeze
	figures    figures
	cleanUp    []func() error
}

// play runs the steps, which are the same in every act.
func (a *act) play() (err error) {
	defer func() {
		for i := len(a.cleanUp) - 1; i >= 0; i-- {
			err = errors.Join(err, a.cleanUp[i]())
		}
	}()
	for _, step := range []func() error{
		a.setUp, a.dump, a.stop, a.deleteOld, a.connectNew, a.restore, a.continueTraffic,
	} {
		if err := step(); err != nil {
			return err
		}
		a.showComplaints()
	}
	return nil
}

// atEnd registers a function that cleans up after the act.
func (a *act) atEnd(do func() error) { a.cleanUp = append(a.cleanUp, do) }

// showComplaints shows what the two programs have complained of.
func (a *act) showComplaints() {
	for _, t := range []*traffic{a.server, a.client} {
		for _, complaint := range t.complaints() {
			a.screen.line(alarm, "%s", complaint)
		}
	}
}

// wait lets time pass and shows what the client receives.
func (a *act) wait(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		a.showComplaints()
		a.screen.status(a.client.records())
	}
	a.screen.line(faint, "%s", a.client.records())
}

// setUp creates two hosts on a bridge and has the server push to the client.
func (a *act) setUp() (err error) {
	if a.withNetfreeze {
		if err := install(a.screen); err != nil {
			return err
		}
	}
	if a.dir, err = os.MkdirTemp("", "demo"); err != nil {
		return err
	}
	a.atEnd(func() error { return os.RemoveAll(a.dir) })
	a.app, a.peer = newHost("server", 1), newHost("client", 2)
	a.atEnd(func() error { return removeNetns(switchNetns) })
	if err := newSwitch(); err != nil {
		return err
	}
	for _, h := range []*host{a.app, a.peer} {
		a.atEnd(func() error { return removeNetns(h.netns) })
		if err := errors.Join(newNetns(h.netns), h.connect()); err != nil {
			return err
		}
		a.screen.line(plain, "host %s on the bridge: %s, %s, %s", h.netns, h.mac, h.v4, h.v6)
	}
	to := a.app.sockets()
	if a.server, err = startTraffic(a.app, a.dir, "serve", "--listen", to[0], "--listen", to[1]); err != nil {
		return err
	}
	a.atEnd(a.server.close)
	if a.client, err = startTraffic(a.peer, a.dir, "connect", "--peer", to[0], "--peer", to[1],
		"--conn", fmt.Sprintf("bulk,size=%d,interval=1ms", recordSize)); err != nil {
		return err
	}
	a.atEnd(a.client.close)
	busy := func() error {
		if n := a.client.living(); n != 2 {
			return fmt.Errorf("%d of 2 connections carry traffic", n)
		}
		return nil
	}
	if err := poll(busy); err != nil {
		return err
	}
	a.screen.line(plain, "the server pushes %d bytes a millisecond over IPv4 and over IPv6, the client as many back", recordSize)
	if a.capture, err = startCapture(a.peer, a.screen); err != nil {
		return err
	}
	a.atEnd(a.capture.close)
	a.wait(time.Second)
	return nil
}
