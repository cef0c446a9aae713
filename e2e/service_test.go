// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"
)

// serviceCRIU is criu service, which forks a worker for each request. A restore into an
// existing namespace needs a descriptor, which the service cannot be given.
type serviceCRIU struct {
	plainCRIU
	socket string
}

func (serviceCRIU) String() string { return "service" }

// startService starts the daemon.
func startService(t *testing.T) serviceCRIU {
	t.Helper()
	s := serviceCRIU{socket: filepath.Join(t.TempDir(), "criu.sock")}
	cmd := newCommand(context.Background(), "", "criu", "service", "--address", s.socket)
	cmd.Dir = t.TempDir()
	if err := cmd.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	poll(t, patience, "criu service", func() error {
		fd, err := s.dial()
		if err == nil {
			_ = syscall.Close(fd)
		}
		return err
	})
	return s
}

func (s serviceCRIU) dial() (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: s.socket}); err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s serviceCRIU) dump(k *task, leaveRunning bool, _ ...string) error {
	return dumpByRPC(k, leaveRunning, func(opts *rpc.CriuOpts) error {
		fd, err := s.dial()
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		_, err = call(fd, rpc.CriuReqType_DUMP, opts)
		return err
	})
}

// dumpByRPC has ask, which takes CRIU's options, dump a task in its network namespace.
func dumpByRPC(k *task, leaveRunning bool, ask func(*rpc.CriuOpts) error) error {
	var ns syscall.Stat_t
	if err := syscall.Stat(netnsPath(k.host.netns), &ns); err != nil {
		return err
	}
	dir, err := os.Open(k.images())
	if err != nil {
		return err
	}
	defer dir.Close()
	err = ask(&rpc.CriuOpts{
		ImagesDirFd: proto.Int32(int32(dir.Fd())), Pid: proto.Int32(int32(k.pid)),
		LogLevel: proto.Int32(4), LogFile: proto.String("dump.log"),
		TcpEstablished: proto.Bool(true), LeaveRunning: proto.Bool(leaveRunning),
		External: []string{fmt.Sprintf("net[%d]:%s", ns.Ino, netnsKey)},
	})
	return withLog(err, filepath.Join(k.images(), "dump.log"))
}

// call sends a request to CRIU and returns its answer.
func call(fd int, what rpc.CriuReqType, opts *rpc.CriuOpts) (*rpc.CriuResp, error) {
	request, err := proto.Marshal(&rpc.CriuReq{Type: &what, Opts: opts})
	if err != nil {
		return nil, err
	}
	if _, err := syscall.Write(fd, request); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	n, err := syscall.Read(fd, buf)
	if err != nil {
		return nil, err
	}
	var answer rpc.CriuResp
	if err := proto.Unmarshal(buf[:n], &answer); err != nil {
		return nil, err
	}
	if !answer.GetSuccess() {
		return nil, fmt.Errorf("%s by RPC: %s", what, answer.GetCrErrmsg())
	}
	return &answer, nil
}

// TestService dumps by criu service, twice by the same daemon. Its workers do not tell
// the action-scripts where the images are.
func TestService(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold"}, plainCRIU{})
	e := startService(t)
	p := newPair(t, e, true, few)
	p.holdAndThaw()
	p.holdAndKill()
	p.restore()
}
