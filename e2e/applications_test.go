// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// application is a server and a client that nobody wrote for a test.
type application struct {
	name string
	port int
	// prepare makes the files that they need, in a directory, for a server on the host.
	prepare func(t *testing.T, dir string, server *host)
	// server and client are shell commands; DIR, HOST and PORT are replaced. The client
	// is at work for some seconds, and fails if anything goes wrong.
	server, client string
	// moving is the client if it is the one to be moved, "" if it is the same.
	moving string
	// wrong finds a mistake in what the client has printed, "" if there is none.
	wrong func(output string) string
}

// lines is a shell command that prints a line every few milliseconds for some seconds.
const lines = "for i in $(seq 600); do echo line $i; sleep 0.01; done"

// missing reports which of the lines has not arrived.
func missing(output string) string {
	got := strings.Split(output, "\n")
	for i := range 600 {
		if line := fmt.Sprintf("line %d", i+1); i >= len(got) || got[i] != line {
			return fmt.Sprintf("line %d is not %q", i+1, line)
		}
	}
	return ""
}

// nginx writes its configuration, with lines for the server.
func nginx(t *testing.T, dir, lines string) {
	t.Helper()
	conf := "user www-data;\nworker_processes 2;\npid DIR/pid;\nevents { }\nhttp {\n\taccess_log off;\n\tkeepalive_requests 100000000;\n"
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += "\t" + what + "_temp_path DIR/" + what + ";\n"
	}
	conf = strings.ReplaceAll(conf, "DIR", dir) + "\tserver { " + lines + " location / { return 200 'hello'; } }\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
}

const postgres = "/usr/lib/postgresql/18/bin"

var applications = []application{
	{
		name: "redis", port: 6379,
		server: "exec redis-server --bind HOST --port PORT --protected-mode no --save '' --dir DIR",
		client: "redis-benchmark -h HOST -p PORT -c 10 -n 200000 -t set,get -q",
		wrong:  containing("Error"),
	},
	{
		name: "PostgreSQL", port: 5432,
		prepare: func(t *testing.T, dir string, server *host) {
			as := []string{"setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"}
			data := filepath.Join(dir, "data")
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			mustRun(t, "", "", "chown", "postgres:postgres", data)
			mustRun(t, "", "", append(as, postgres+"/initdb", "--pgdata", data, "--auth", "trust", "--no-sync")...)
			mustRun(t, "", "", "sh", "-c", "echo host all all all trust >>"+data+"/pg_hba.conf")
		},
		// Its shared memory of System V has to be in a namespace that is dumped too.
		server: "exec unshare --ipc setpriv --reuid postgres --regid postgres --clear-groups " + postgres + "/postgres -D DIR/data" +
			" -c listen_addresses=HOST -c port=PORT -c unix_socket_directories= -c fsync=off -c huge_pages=off -c shared_buffers=16MB -c max_connections=20",
		client: "until " + postgres + "/pgbench -h HOST -p PORT -U postgres -i -q postgres; do sleep 0.1; done; " +
			postgres + "/pgbench -h HOST -p PORT -U postgres -n -c 4 -T 5 postgres",
		wrong: lacking("number of failed transactions: 0 (0.000%)"),
	},
	{
		name: "nginx", port: 8080,
		prepare: func(t *testing.T, dir string, server *host) { nginx(t, dir, fmt.Sprintf("listen %s:8080;", server.v4)) },
		server:  "exec nginx -c DIR/nginx.conf -e DIR/error.log -g 'daemon off;'",
		client:  "wrk --duration 5s --connections 10 --threads 2 --timeout 20s http://HOST:PORT/",
		// wrk ends early when the sleep of its main thread is interrupted, which a restore does.
		moving: "ab -q -k -c 10 -t 5 -n 10000000 http://HOST:PORT/",
		wrong:  containing("Socket errors", "Non-2xx", "Failed requests:        [1-9]"),
	},
	{
		name: "TLS", port: 8443,
		prepare: func(t *testing.T, dir string, server *host) {
			mustRun(t, "", "", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
				"-subj", "/CN=test", "-keyout", filepath.Join(dir, "key"), "-out", filepath.Join(dir, "cert"))
			nginx(t, dir, fmt.Sprintf("listen %s:8443 ssl; ssl_certificate %s/cert; ssl_certificate_key %[2]s/key;", server.v4, dir))
		},
		server: "exec nginx -c DIR/nginx.conf -e DIR/error.log -g 'daemon off;'",
		client: "wrk --duration 5s --connections 10 --threads 2 --timeout 20s https://HOST:PORT/",
		moving: "ab -q -k -c 10 -t 5 -n 10000000 https://HOST:PORT/",
		wrong:  containing("Socket errors", "Non-2xx", "Failed requests:        [1-9]"),
	},
	{
		name: "ssh", port: 2222,
		prepare: func(t *testing.T, dir string, server *host) {
			for _, key := range []string{"host", "user"} {
				mustRun(t, "", "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key))
			}
			if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
				t.Fatal(err)
			}
			conf := fmt.Sprintf("ListenAddress %s:2222\nHostKey %[2]s/host\nAuthorizedKeysFile %[2]s/user.pub\n"+
				"StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n", server.v4, dir)
			if err := os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(conf), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		server: "exec /usr/sbin/sshd -D -e -f DIR/sshd_config",
		client: "ssh -T -n -q -i DIR/user -p PORT -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@HOST '" + lines + "'",
		wrong:  missing,
	},
	{
		name: "iperf3", port: 5201,
		server: "exec iperf3 --server --bind HOST --port PORT",
		client: "iperf3 --client HOST --port PORT --time 5 --bitrate 200M --bidir",
		wrong:  containing("error"),
	},
}

// containing finds what matches one of the expressions.
func containing(bad ...string) func(string) string {
	all := regexp.MustCompile(strings.Join(bad, "|"))
	return func(output string) string {
		if found := all.FindString(output); found != "" {
			return "it says " + found
		}
		return ""
	}
}

func lacking(words string) func(string) string {
	return func(output string) string {
		if !strings.Contains(output, words) {
			return "it does not say " + words
		}
		return ""
	}
}

// limits is a library for CRIU, see testdata/limits.c.
var limits = filepath.Join(build, "limits.so")

// appTask starts a shell command on a host, below a directory.
func appTask(t *testing.T, h *host, dir, name, command string) *task {
	t.Helper()
	k := &task{t: t, engine: plainCRIU{}, host: h, dir: filepath.Join(dir, name), id: name}
	if err := os.MkdirAll(k.images(), 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(k.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := newCommand(context.Background(), h.netns, "sh", "-c", command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.start(); err != nil {
		t.Fatal(err)
	}
	k.pid = cmd.Process.Pid
	go func() { _ = cmd.Wait() }()
	t.Cleanup(func() { _, _ = runIn("", "", "pkill", "-KILL", "-s", fmt.Sprint(k.pid)) })
	return k
}

// output is what the task has printed.
func (k *task) output() string {
	text, _ := os.ReadFile(filepath.Join(k.dir, "out"))
	return string(text)
}

// TestApplications moves programs that everybody uses, under load: once the server, and
// once the client. The client must not notice.
func TestApplications(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
	for _, app := range applications {
		for _, which := range []string{"server", "client"} {
			t.Run(app.name+"/"+which, func(t *testing.T) {
				app.move(t, which) // one after the other: each loads the machine
			})
		}
	}
}

func (a *application) move(t *testing.T, which string) {
	p := newHosts(t)
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil { // not all run as root
		t.Fatal(err)
	}
	serverOn, clientOn := p.app, p.peer
	if which == "client" {
		serverOn, clientOn = p.peer, p.app
	}
	if a.prepare != nil {
		a.prepare(t, dir, serverOn)
	}
	fill := strings.NewReplacer("DIR", dir, "HOST", serverOn.v4.String(), "PORT", fmt.Sprint(a.port)).Replace
	server := appTask(t, serverOn, dir, "server", fill(a.server))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server says:\n%s", server.output())
		}
	})
	poll(t, patience, a.name+" to listen", func() error {
		if out := mustRun(t, serverOn.netns, "", "ss", "-Htln", fmt.Sprintf("sport = :%d", a.port)); out == "" {
			return fmt.Errorf("nobody listens; the server says %s", server.output())
		}
		return nil
	})
	command := a.client
	if which == "client" {
		command = cmp.Or(a.moving, a.client)
	}
	client := appTask(t, clientOn, dir, "client", "{ "+fill(command)+"; }; echo exit code $?")
	time.Sleep(time.Second) // under load
	packets := startCapture(t, p.peer.netns, iface)
	from := time.Now()
	moved := map[string]*task{"server": server, "client": client}[which]
	if !strings.Contains(client.output(), "exit code") {
		a.dumpAndMove(t, moved, p.app)
	}
	if err := moved.engine.restore(moved); err != nil {
		t.Fatalf("restore: %v", err)
	}
	time.Sleep(500 * time.Millisecond) // before the programs end, which some do with a reset
	if seen := packets.since(from); seen.rst+seen.fin > 0 {
		t.Errorf("%d RST, %d FIN", seen.rst, seen.fin)
	}
	if strings.Contains(client.output(), "exit code") {
		t.Errorf("the client has ended soon after the restore: nothing was tested: %s", client.output())
	}
	poll(t, 2*patience, "the client's end", func() error {
		if out := client.output(); !strings.Contains(out, "exit code") {
			return fmt.Errorf("it says %s", out[max(0, len(out)-300):])
		}
		return nil
	})
	out := client.output()
	if wrong := a.wrong(out); wrong != "" || !strings.HasSuffix(out, "exit code 0\n") {
		t.Errorf("%s: %s", wrong, out[max(0, len(out)-2000):])
	}
}

// dumpAndMove dumps a tree, and moves its host to a new namespace.
func (a *application) dumpAndMove(t *testing.T, k *task, h *host) {
	t.Helper()
	criu := []string{"env", "LD_PRELOAD=" + limits, "criu"}
	if err := dumpBy(criu, k, true, "--file-locks"); err != nil {
		t.Fatalf("dump: %v", err)
	}
	k.awaitEnd()
	h.move(h.nextNetns(freeze(t)))
}
