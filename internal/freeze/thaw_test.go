// SPDX-License-Identifier: Apache-2.0

package freeze

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
	"github.com/criu-netfreeze/criu-netfreeze/rules/fake"
)

// connectVar makes this test binary a process that has a TCP connection with itself.
const connectVar = "FREEZE_TEST_CONNECT"

// TestMain gives the tests a /run of their own.
func TestMain(m *testing.M) {
	if os.Getenv(connectVar) != "" {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		if _, err := net.Dial("tcp4", l.Addr().String()); err != nil {
			panic(err)
		}
		if _, err := l.Accept(); err != nil {
			panic(err)
		}
		fmt.Println("connected")
		time.Sleep(time.Hour)
	}
	nstest.Main(m)
}

// task starts a process in ns, with a TCP connection of its own or without any.
func task(t *testing.T, ns *netns.Namespace, connected bool) proc.Ref {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	if connected {
		cmd = exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), connectVar+"=1", "GODEBUG=multipathtcp=0")
	}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, ns.Do(cmd.Start))
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if connected {
		_, err = out.Read(make([]byte, 16))
		must(t, err)
	}
	st, err := proc.ReadStat(cmd.Process.Pid)
	must(t, err)
	return proc.Ref{PID: cmd.Process.Pid, Start: st.Start}
}

// stop stops tasks as a dump or as somebody else would.
func stop(t *testing.T, tasks ...proc.Ref) {
	t.Helper()
	for _, p := range tasks {
		must(t, unix.Kill(p.PID, unix.SIGSTOP))
		for deadline := time.Now().Add(10 * time.Second); stateOf(t, p) != 'T'; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not stop", p)
			}
		}
	}
}

func stateOf(t *testing.T, p proc.Ref) byte {
	t.Helper()
	st, err := proc.ReadStat(p.PID)
	must(t, err)
	return st.State
}

// inRepair counts the task's sockets in repair mode, and takes them out of it.
func inRepair(t *testing.T, p proc.Ref) (n int) {
	t.Helper()
	must(t, proc.EachLiving([]proc.Ref{p}, func(some proc.Tree) (err error) {
		n, _, err = tcp.LeaveRepair(some, nil)
		return err
	}))
	return n
}

// hold holds tasks in ns as a dump with policy hold leaves them.
func hold(t *testing.T, k *Keeper, ns *netns.Namespace, tasks ...proc.Ref) *Freeze {
	t.Helper()
	f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Policy: "hold", Owner: "a", Tree: tasks})
	must(t, f.Arm())
	stop(t, tasks...)
	must(t, proc.EachLiving(tasks, func(some proc.Tree) error { return f.Hold(some, "policy") }))
	return f
}

// TestThawHeld undoes a hold: the task runs, its sockets work, no rule is left.
func TestThawHeld(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	p := task(t, ns, true)
	f := hold(t, k, ns, p)
	must(t, k.Thaw(4, f.Record))
	if stateOf(t, p) == 'T' || inRepair(t, p) > 0 || filter.String() != "" {
		t.Errorf("after the thaw: state %c, in force %s", stateOf(t, p), filter)
	}
	if all, err := record.All(); len(all) > 0 || err != nil {
		t.Errorf("records left: %v, %v", all, err)
	}
}

// TestThawKeepsStopped leaves stopped what was stopped before the dump.
func TestThawKeepsStopped(t *testing.T) {
	fresh(t)
	k, ns := New(fake.New()), nstest.New(t)
	before, ours := task(t, ns, false), task(t, ns, false)
	f := hold(t, k, ns, before, ours)
	f.Record.StoppedBefore = []proc.Ref{before}
	must(t, f.Save())
	must(t, k.Thaw(0, f.Record))
	if stateOf(t, before) != 'T' || stateOf(t, ours) == 'T' {
		t.Errorf("stopped before: %c, by us: %c", stateOf(t, before), stateOf(t, ours))
	}
}

// TestThawSees does not say that tasks run on which it has not seen to.
func TestThawSees(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	p := task(t, ns, false)
	stop(t, p)
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // somebody else stops it again and again
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Kill(p.PID, unix.SIGSTOP)
			}
		}
	}()
	err := continueTasks([]proc.Ref{p}, nil)
	close(done)
	<-stopped
	if err != nil && (!strings.Contains(err.Error(), fmt.Sprintf("pid %d", p.PID)) || !strings.Contains(err.Error(), code.StillStopped.String())) {
		t.Errorf("the error does not name the task: %v", err)
	}
	must(t, unix.Kill(p.PID, unix.SIGCONT))
	must(t, continueTasks([]proc.Ref{p}, nil))
	if stateOf(t, p) == 'T' {
		t.Error("said to run, and is stopped")
	}
}

// TestThawMany thaws and ends more tasks than this process may have descriptors.
func TestThawMany(t *testing.T) {
	fresh(t)
	k, ns := New(fake.New()), nstest.New(t)
	var tasks []proc.Ref
	for range 150 {
		tasks = append(tasks, task(t, ns, false))
	}
	f := hold(t, k, ns, tasks...)
	f.Record.Tree = tasks
	must(t, f.Save())
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	low := before
	low.Cur = uint64(len(open)) + 90
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before)) }()
	if _, err := proc.OpenLiving(tasks); !errors.Is(err, unix.EMFILE) {
		t.Errorf("all at once: %v", err)
	}
	must(t, k.Thaw(0, f.Record))
	for _, p := range tasks {
		if stateOf(t, p) == 'T' {
			t.Fatalf("%s is still stopped", p)
		}
	}
	stop(t, tasks...)
	must(t, end(f.Record, tasks))
	if slices.ContainsFunc(tasks, proc.Ref.Alive) {
		t.Error("tasks live that were ended")
	}
}

// TestStubborn tries again what fails in passing, and gives up at some time.
func TestStubborn(t *testing.T) {
	t.Parallel()
	passing, calls := errors.New("passing"), 0
	must(t, stubborn(func() error {
		if calls++; calls < 3 {
			return passing
		}
		return nil
	}))
	if err := stubborn(func() error { return passing }); !errors.Is(err, passing) {
		t.Errorf("got %v", err)
	}
}

// TestKill ends a held tree silently, and nothing else.
func TestKill(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	inhabit(t, ns) // another process by which the namespace is found
	p := task(t, ns, true)
	f := hold(t, k, ns, p)
	must(t, k.Kill(f.Record))
	if p.Alive() || !strings.Contains(filter.String(), "frozen") {
		t.Errorf("alive %v, in force %s", p.Alive(), filter)
	}
	var socks []tcp.Socket
	must(t, ns.Do(func() (err error) { socks, err = tcp.List(); return err }))
	for _, s := range socks {
		if s.Connected() {
			t.Errorf("left: %s in state %d", s.Tuple, s.State)
		}
	}
	now, err := record.Load("1@1")
	must(t, err)
	if now.Phase != record.Ended || now.Stopped {
		t.Errorf("the record is %+v", now)
	}
	other := &record.Record{ID: "2@2", Op: record.Manual, Phase: record.Frozen, NetNS: ns.ID()}
	must(t, other.Save())
	if err := k.Kill(other); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("killed what is not held: %v", err)
	}
}

// TestThawUnrecorded finds from the kernel alone what to undo: the state directory was
// lost during a hold.
func TestThawUnrecorded(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	p := task(t, ns, true)
	hold(t, k, ns, p)
	must(t, os.RemoveAll(record.Dir))
	done, err := k.ThawUnrecorded(ns)
	must(t, err)
	if want := (Unrecorded{Thawed: true, Repaired: 2, Continued: 1}); done != want {
		t.Errorf("undone: %+v, want %+v", done, want)
	}
	if stateOf(t, p) == 'T' || inRepair(t, p) > 0 || filter.String() != "" {
		t.Errorf("after the thaw: state %c, in force %s", stateOf(t, p), filter)
	}
	if done, err := k.ThawUnrecorded(ns); err != nil || done != (Unrecorded{}) {
		t.Errorf("once more: %+v, %v", done, err)
	}
}

// TestThawUnrecordedUnknown names a task that stays stopped, since nothing tells who
// has stopped it.
func TestThawUnrecordedUnknown(t *testing.T) {
	fresh(t)
	filter := fake.New()
	k, ns := New(filter), nstest.New(t)
	p := task(t, ns, false)
	hold(t, k, ns, p)
	must(t, os.RemoveAll(record.Dir))
	done, err := k.ThawUnrecorded(ns)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d is stopped", p.PID)) {
		t.Errorf("got %v", err)
	}
	if !done.Thawed || filter.String() != "" || stateOf(t, p) != 'T' {
		t.Errorf("undone: %+v, state %c, in force %s", done, stateOf(t, p), filter)
	}
}

// TestStatusKeepsWayBack does not drop the record of a dump that was broken off with
// sockets in repair mode, its time to live over: without it nobody could undo that.
func TestStatusKeepsWayBack(t *testing.T) {
	for _, phase := range []record.Phase{record.Running, record.Committed} {
		t.Run(string(phase), func(t *testing.T) {
			fresh(t)
			filter := fake.New()
			k, ns := New(filter), nstest.New(t)
			p := task(t, ns, true)
			f := newFreeze(t, k, ns, record.Record{ID: "1@1", Op: record.Dump, Phase: phase, Owner: "a", Tree: []proc.Ref{p}})
			stop(t, p)
			must(t, proc.EachLiving(f.Record.Tree, func(some proc.Tree) error { _, err := tcp.EnterRepair(some); return err }))
			must(t, unix.Kill(p.PID, unix.SIGCONT))
			f.Record.ExpireIn(-time.Second)
			must(t, f.Save())
			list, err := k.List()
			must(t, err)
			if len(list) != 1 || list[0].State != "orphaned" || list[0].Frozen {
				t.Errorf("status: %+v", list)
			}
			k.Tidy()
			now, err := record.Load("1@1")
			must(t, err)
			must(t, k.Thaw(0, now))
			if n := inRepair(t, p); n > 0 {
				t.Errorf("%d sockets are in repair mode after the thaw", n)
			}
			if list, err := k.List(); err != nil || len(list) > 0 {
				t.Errorf("status after the thaw: %+v, %v", list, err)
			}
		})
	}
}

// TestStatusForeignContinue says that somebody has continued a held tree.
func TestStatusForeignContinue(t *testing.T) {
	fresh(t)
	k, ns := New(fake.New()), nstest.New(t)
	p := task(t, ns, false)
	hold(t, k, ns, p)
	list, err := k.List()
	must(t, err)
	if len(list) != 1 || list[0].State != "held" || strings.Contains(list[0].Note, "runs") {
		t.Errorf("status: %+v", list)
	}
	must(t, unix.Kill(p.PID, unix.SIGCONT))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		list, err := k.List()
		must(t, err)
		if len(list) == 1 && strings.Contains(list[0].Note, fmt.Sprintf("pid %d runs", p.PID)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("status: %+v", list)
		}
	}
}

// TestLockIsOurs has another process lock the namespace's own file: that is open to
// every process in the namespace, and must keep nobody from thawing.
func TestLockIsOurs(t *testing.T) {
	fresh(t)
	ns := nstest.New(t)
	p := task(t, ns, false)
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.PID))
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	begin := time.Now()
	must(t, locked(ns, func() error { return nil }))
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the lock took %v", took)
	}
}
