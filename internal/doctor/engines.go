// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// engine is a program that has an OCI runtime call CRIU.
type engine struct {
	name    string
	runtime string // the base name of its default runtime
	from    string // the file that says so, "" if it is the engine's own default
	// annotated is where the engine's configuration gives containers the annotation
	// org.criu.config; "" if it does not.
	annotated string
	// cniBin and cniConf are its directories of CNI; empty where it does not name any.
	cniBin, cniConf []string
}

// criuConfig is the annotation by which runc and crun are told to have CRIU read another
// file than their own.
const criuConfig = "org.criu.config"

// engines returns the engines that are installed.
func (h *Host) engines() (all []engine) {
	for _, e := range []struct {
		program string
		read    func(*Host) engine
	}{{"podman", podman}, {"containerd", containerd}, {"crio", crio}, {"dockerd", docker}} {
		if h.look(e.program) != "" {
			all = append(all, e.read(h))
		}
	}
	return all
}

// podman takes the last of its files that names a runtime (containers.conf(5)). Its own
// default is crun, or the first that is installed.
func podman(h *Host) engine {
	e := engine{name: "podman", runtime: "crun"}
	if h.look("crun") == "" && h.look("runc") != "" {
		e.runtime = "runc"
	}
	for _, t := range h.tables("/usr/share/containers/containers.conf", "/etc/containers/containers.conf", "/etc/containers/containers.conf.d/*.conf") {
		if name := t.sub("engine").text("runtime"); name != "" {
			e.runtime, e.from = filepath.Base(name), t.file
		}
		for _, a := range t.sub("containers").texts("annotations") {
			if strings.HasPrefix(a, criuConfig+"=") {
				e.annotated = t.file
			}
		}
	}
	return e
}

// containerd has the CRI plugin's settings under one name in version 3 of its
// configuration, and under another before. Its shim calls runc unless it is told otherwise.
func containerd(h *Host) engine {
	e := engine{name: "containerd", runtime: "runc"}
	for _, t := range h.tables("/etc/containerd/config.toml", "/etc/containerd/conf.d/*.toml") {
		for _, plugin := range []string{"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"} {
			cri := t.sub("plugins", plugin)
			c := cri.sub("containerd")
			name := c.text("default_runtime_name")
			if name == "" {
				name = "runc"
			}
			if program := c.sub("runtimes", name, "options").text("BinaryName"); program != "" {
				e.runtime, e.from = filepath.Base(program), t.file
			} else if kind := c.sub("runtimes", name).text("runtime_type"); kind != "" && kind != "io.containerd.runc.v2" {
				e.runtime, e.from = kind, t.file
			}
			if dir := cri.sub("cni").text("bin_dir"); dir != "" {
				e.cniBin = append(e.cniBin, dir)
			}
			e.cniBin = append(e.cniBin, cri.sub("cni").texts("bin_dirs")...)
			if dir := cri.sub("cni").text("conf_dir"); dir != "" {
				e.cniConf = append(e.cniConf, dir)
			}
		}
	}
	return e
}

// crio has crun as its default, unless it is an old one (crio.conf(5), default_runtime).
func crio(h *Host) engine {
	e := engine{name: "CRI-O", runtime: "crun"}
	for _, t := range h.tables("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*") {
		r := t.sub("crio", "runtime")
		if name := r.text("default_runtime"); name != "" {
			e.runtime, e.from = name, t.file
		}
		if path := r.sub("runtimes", e.runtime).text("runtime_path"); path != "" {
			e.runtime, e.from = filepath.Base(path), t.file
		}
		n := t.sub("crio", "network")
		e.cniBin = append(e.cniBin, n.texts("plugin_dirs")...)
		if dir := n.text("network_dir"); dir != "" {
			e.cniConf = append(e.cniConf, dir)
		}
	}
	return e
}

// docker has runc as its default (dockerd(8), daemon.json).
func docker(h *Host) engine {
	const file = "/etc/docker/daemon.json"
	e := engine{name: "docker", runtime: "runc"}
	data, err := os.ReadFile(h.on(file))
	if err != nil {
		return e
	}
	var conf struct {
		Default  string `json:"default-runtime"`
		Runtimes map[string]struct {
			Path string `json:"path"`
		} `json:"runtimes"`
	}
	if json.Unmarshal(data, &conf) != nil || conf.Default == "" {
		return e
	}
	e.runtime, e.from = conf.Default, file
	if path := conf.Runtimes[conf.Default].Path; path != "" {
		e.runtime = filepath.Base(path)
	}
	return e
}

// checkEngines says which runtime each engine uses, as far as its configuration tells.
func checkEngines(h *Host) (found []Finding) {
	for _, e := range h.engines() {
		from := "by default"
		if e.from != "" {
			from = "by " + e.from
		}
		switch e.runtime {
		case "runc", "crun":
			found = append(found, ok(e.name, "uses %s %s", e.runtime, from))
		default:
			found = append(found, warn(e.name, "use runc or crun for what is to be dumped, or have that runtime's CRIU read the lines of runc.conf",
				"uses %s %s: which configuration file that has CRIU read is not known", e.runtime, from))
		}
		if e.annotated != "" {
			found = append(found, warn(e.annotated, "list our lines in the file that it names as well",
				"%s gives containers the annotation %s: runc and crun have CRIU read that file instead of their own", e.name, criuConfig))
		}
		if e.name == "podman" {
			found = append(found, h.checkOCIHook())
		}
	}
	return found
}

// checkOCIHook says whether podman calls our OCI hook, which only moves need.
func (h *Host) checkOCIHook() Finding {
	for _, pattern := range []string{"/usr/share/containers/oci/hooks.d/*.json", "/etc/containers/oci/hooks.d/*.json"} {
		files, _ := filepath.Glob(h.on(pattern)) // the only error is a bad pattern
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(data), "netfreeze-oci") {
				continue
			}
			var hook struct {
				Hook struct {
					Path string `json:"path"`
				} `json:"hook"`
			}
			if json.Unmarshal(data, &hook) == nil && !executable(h.on(hook.Hook.Path)) {
				return fails(h.off(file), "install the programs again (make install), or remove the file", "podman is to call %s for each container, and that is no executable file", hook.Hook.Path)
			}
			return ok("podman", "calls netfreeze-oci")
		}
	}
	return note("podman", "docs/podman.md says how", "does not call netfreeze-oci, which freezes announced containers at their birth; dumps do not need it")
}
