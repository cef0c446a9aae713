// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

const digest = "8cd8919e6daa07f31535caff75ec7bd70d9f74c3e1c5556464ec3c74fb60f083"

// TestKinds finds the same checkpoint in everything that can have one.
func TestKinds(t *testing.T) {
	whole := exported(t, "")
	pulled := func(name string) []file {
		return []file{
			{name: "sha256:" + digest, data: []byte(`{"config":{"Labels":{"org.criu.checkpoint.container.name":"web"}}}`)},
			{name: name, data: zipped(pack(whole...))},
			{name: "manifest.json", data: []byte(`[{"Layers":["x"]}]`)},
		}
	}
	preDump := append([]file{{name: "pre/inventory.img", data: whole[2].data}}, whole...)
	for _, tc := range []struct {
		name, path, kind, where string
		known                   bool // who was dumped
	}{
		{"images", samples + "external", KindDirectory, "", false},
		{"an unpacked archive", unpack(t, whole), KindDirectory, "checkpoint", true},
		{"what an engine keeps", unpack(t, exported(t, "web/")), KindDirectory, "web/checkpoint", true},
		{"docker's", save(t, pack(images(t, "external", "cp1/")...)), KindArchive, "cp1", false},
		{"tar", save(t, pack(whole...)), KindArchive, "checkpoint", true},
		{"tar, by tar -C", save(t, pack(exported(t, "./")...)), KindArchive, "checkpoint", true},
		{"gzip", save(t, zipped(pack(whole...))), KindArchive, "checkpoint", true},
		{"zstd", save(t, zstandard(pack(whole...))), KindArchive, "checkpoint", true},
		{"after a pre-dump", save(t, pack(preDump...)), KindArchive, "checkpoint", true},
		{"OCI layout", unpack(t, layout(zipped(pack(whole...)))), KindImage, "*/checkpoint", true},
		{"OCI archive", save(t, pack(layout(pack(whole...))...)), KindImage, "*/checkpoint", true},
		{"OCI archive, zstd in gzip", save(t, zipped(pack(layout(zstandard(pack(whole...)))...))), KindImage, "*/checkpoint", true},
		{"ctr's", save(t, pack(layout(pack(images(t, "external", "")...))...)), KindImage, "blobs/*", false},
		{"docker-archive", save(t, pack(file{name: digest + "/layer.tar", data: pack(whole...)})), KindImage, digest + "/layer.tar/checkpoint", true},
		{"docker-archive of a registry", save(t, pack(pulled(digest+".tar.gz")...)), KindImage, digest + ".tar.gz/checkpoint", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := Read(tc.path)
			if err != nil || len(r.Checkpoints) != 1 {
				t.Fatalf("%+v, %v", r, err)
			}
			c := r.Checkpoints[0]
			prefix, suffix, _ := strings.Cut(tc.where, "*")
			if r.Kind != tc.kind || !strings.HasPrefix(c.Where, prefix) || !strings.HasSuffix(c.Where, suffix) {
				t.Errorf("it is %s, at %s", r.Kind, c.Where)
			}
			if len(c.Connections) != 2 || len(c.Listening) != 4 || len(c.Tasks) != 1 || len(c.Problems) != 0 {
				t.Errorf("%+v", c)
			}
			if c.Needs.NetNS != "external" || c.Needs.Key != "extRootNetNS" || fmt.Sprint(c.Needs.Addresses) != "[10.9.0.1 ::1]" {
				t.Errorf("it needs %+v", c.Needs)
			}
			if o := c.Origin; tc.known && (o.Container.ID != "3f2a91" || o.Container.Name != "web" || o.Container.Pod != "shop/web-0" ||
				o.Engine != "cri-o" || o.Runtime != "runc" || o.Image != "docker.io/library/web:1" || o.CRIUVersion != "4.2.1" ||
				!o.Time.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || len(o.Interfaces) != 1 || o.Interfaces[0].Addresses[0] != "10.9.0.1/24") {
				t.Errorf("the container: %+v", o)
			}
			if strings.HasPrefix(tc.name, "ctr") && (c.Origin.Container.Name != "web" || c.Origin.Engine != "CRI-O") {
				t.Errorf("the annotations say: %+v", c.Origin)
			}
		})
	}
}

// TestPod has the checkpoints of several containers in one archive.
func TestPod(t *testing.T) {
	r, err := Read(save(t, pack(append(exported(t, "a/"), exported(t, "b/")...)...)))
	if err != nil || len(r.Checkpoints) != 2 || r.Checkpoints[0].Where != "a/checkpoint" || r.Checkpoints[1].Origin.Container.ID == "" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestConnection shows queues, and says of a connection what is wrong with its image.
func TestConnection(t *testing.T) {
	files := images(t, "external", "")
	for i, f := range files {
		if f.name == "tcp-stream-4405b.img" {
			files[i].data = f.data[:len(f.data)-1] // not even the entry is whole
		}
	}
	r, err := Read(save(t, pack(files...)))
	if err != nil {
		t.Fatal(err)
	}
	var good, bad int
	for _, c := range r.Checkpoints[0].Connections {
		if c.Problem != "" {
			bad++
		} else if c.MSS > 0 && c.State == "ESTAB" && len(c.Options) == 4 {
			good++
		}
	}
	if good != 1 || bad != 1 {
		t.Errorf("%+v", r.Checkpoints[0].Connections)
	}
}

// TestFails names what is wrong, and gives it a code.
func TestFails(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	nstest.Must(t, unix.Mkfifo(fifo, 0o600))
	linked := unpack(t, exported(t, ""))
	nstest.Must(t, os.Remove(filepath.Join(linked, "checkpoint/files.img")))
	outside, err := filepath.Abs(samples + "external/files.img")
	nstest.Must(t, err)
	nstest.Must(t, os.Symlink(outside, filepath.Join(linked, "checkpoint/files.img")))
	piped := unpack(t, exported(t, ""))
	nstest.Must(t, os.Remove(filepath.Join(piped, "checkpoint/files.img")))
	nstest.Must(t, unix.Mkfifo(filepath.Join(piped, "checkpoint/files.img"), 0o600))
	for _, tc := range []struct {
		path, want string
		code       code.Code
	}{
		{"/nowhere", "no such file", code.Usage},
		{fifo, "neither a directory nor a regular file", code.Untrusted},
		{"/dev/zero", "neither a directory nor a regular file", code.Untrusted},
		{t.TempDir(), "no directory has an inventory.img", code.Images},
		{save(t, nil), "no directory has an inventory.img", code.Images},
		{save(t, []byte("no archive at all")), "damaged", code.Images},
		{samples + "external/inventory.img", "damaged, or none", code.Images},
		{save(t, pack(exported(t, "")...)[:700]), "ends in the middle", code.Images},
		{save(t, zipped(pack(exported(t, "")...))[:900]), "damaged", code.Images},
		{save(t, zstandard(pack(exported(t, "")...))[:900]), "damaged", code.Images},
		{linked, "escapes", code.Images},
		{piped, "not a regular file", code.Untrusted},
	} {
		r, err := Read(tc.path)
		if c, _ := code.Of(err); err == nil || c != tc.code || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %+v, %v; want %s with %q", tc.path, r, err, tc.code, tc.want)
		}
	}
}

// TestInterfaces reads both forms of network.status, and nothing else.
func TestInterfaces(t *testing.T) {
	for text, want := range map[string]string{
		netStatus: "[{podman eth0 02:00:00:00:00:02 [10.9.0.1/24]}]",
		`[{"interfaces":[{"name":"veth1"},{"name":"eth0","mac":"02:00:00:00:00:03","sandbox":"/run/netns/a"}],"ips":[{"address":"10.1.0.2/16","interface":1}]}]`: "[{ eth0 02:00:00:00:00:03 [10.1.0.2/16]}]",
		`{}`: "[]", `null`: "[]", `"x"`: "[]", `[1]`: "[]",
	} {
		if got := fmt.Sprint(interfaces([]byte(text))); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestTaken asks the kernel about ports.
func TestTaken(t *testing.T) {
	ns := nstest.New(t)
	nstest.Must(t, ns.Do(func() error {
		for _, tc := range []struct {
			there, mine string
			v6only      bool
			want        bool
		}{
			{"127.0.0.1:80", "127.0.0.1:80", false, true},
			{"127.0.0.1:80", "127.0.0.1:81", false, false},
			{"127.0.0.1:80", "127.0.0.2:80", false, false},
			{"127.0.0.1:80", "0.0.0.0:80", false, true},
			{"127.0.0.1:80", "[::]:80", false, true},
			{"127.0.0.1:80", "[::]:80", true, false},
			{"[::]:80", "0.0.0.0:80", false, true},
			{"[::]:80", "192.0.2.9:80", false, true}, // an address that is not there
			{"[::1]:80", "0.0.0.0:80", false, false},
		} {
			there := Listener{Protocol: "tcp", Local: netip.MustParseAddrPort(tc.there)}
			done := listen(t, there.Local)
			got, err := Listener{Local: netip.MustParseAddrPort(tc.mine), v6only: tc.v6only}.taken()
			done()
			if err != nil || got != tc.want {
				t.Errorf("%+v: %v, %v", tc, got, err)
			}
		}
		return nil
	}))
}

// listen listens in this thread's namespace.
func listen(t *testing.T, at netip.AddrPort) (done func()) {
	t.Helper()
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()})
	if at.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	nstest.Must(t, err)
	nstest.Must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	nstest.Must(t, unix.Bind(fd, sa))
	nstest.Must(t, unix.Listen(fd, 1))
	return func() { _ = unix.Close(fd) }
}

// TestCheck compares a checkpoint with namespaces.
func TestCheck(t *testing.T) {
	ns := nstest.New(t)
	check := func() *Target {
		t.Helper()
		r, err := Read(save(t, pack(exported(t, "")...)))
		nstest.Must(t, err)
		nstest.Must(t, r.Checkpoints[0].Check(ns))
		return r.Checkpoints[0].Target
	}
	got := check()
	if c, _ := code.Of(got.Err()); got.Restorable || len(got.Findings) != 1 || c != code.NoAddress || got.Findings[0].Remedy == "" ||
		!strings.Contains(got.Findings[0].Remedy, "10.9.0.1/24 dev") || !strings.Contains(got.Findings[0].Text, "1 connection and 2 listening sockets") {
		t.Errorf("without the address: %+v", got)
	}
	nstest.Run(t, ns, "ip", "addr", "add", "10.9.0.1/32", "dev", "lo")
	if got := check(); !got.Restorable || len(got.Findings) != 0 || got.Err() != nil {
		t.Errorf("with the address: %+v", got)
	}
	var done func()
	nstest.Must(t, ns.Do(func() error {
		done = listen(t, netip.MustParseAddrPort("0.0.0.0:7000"))
		return nil
	}))
	got = check()
	done()
	if c, _ := code.Of(got.Err()); c != code.PortTaken || !strings.Contains(got.Findings[0].Text, "listens on 0.0.0.0:7000") {
		t.Errorf("with a port taken: %+v", got)
	}
}
