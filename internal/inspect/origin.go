// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/criuimg"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
)

// Origin says who was dumped, by whom and when, as far as the checkpoint tells. Any field
// may be empty. All of it was chosen by whoever made the checkpoint.
type Origin struct {
	Container   identity.Container `json:"container"`
	Image       string             `json:"image,omitempty"`        // of the container's root file system
	Runtime     string             `json:"runtime,omitempty"`      // runc, crun
	Engine      string             `json:"engine,omitempty"`       // podman, CRI-O, containerd
	CRIUVersion string             `json:"criu_version,omitempty"` // such as 4.2.1
	Time        time.Time          `json:"time,omitzero"`          // of the dump
	FrozenUS    int64              `json:"frozen_us,omitempty"`    // how long the tasks were stopped, in microseconds
	Interfaces  []Interface        `json:"interfaces,omitempty"`   // which the engine had made
}

// Interface is a network interface that the engine had made for the container, as its
// network.status says.
type Interface struct {
	Network   string   `json:"network,omitempty"`
	Name      string   `json:"name"`
	MAC       string   `json:"mac,omitempty"`
	Addresses []string `json:"addresses,omitempty"` // with the length of the prefix
}

// annotate keeps the annotations and labels about checkpoints of a document of OCI or
// docker: an index, a manifest or a configuration. What is said first counts.
func (s *store) annotate(data []byte) {
	type annotated struct {
		Annotations map[string]string `json:"annotations"`
	}
	var doc struct {
		annotated
		Manifests []annotated `json:"manifests"`
		Config    struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	}
	if json.Unmarshal(data, &doc) != nil {
		return // a list of docker's, or no document: nothing depends on it
	}
	take := func(notes map[string]string) {
		for k, v := range notes {
			const most = 100
			if strings.Contains(k, "checkpoint") && s.notes[k] == "" && len(s.notes) < most && len(k)+len(v) < maxName {
				s.notes[k] = v
			}
		}
	}
	take(doc.Annotations)
	for _, m := range doc.Manifests {
		take(m.Annotations)
	}
	take(doc.Config.Labels)
}

// note returns an annotation of the image. CRI-O, podman and the common names of the CRIU
// project differ in what stands before and in letters.
func (s source) note(names ...string) string {
	for _, prefix := range []string{"org.criu.checkpoint.", "io.kubernetes.cri-o.annotations.checkpoint.", "io.podman.annotations.checkpoint."} {
		for _, name := range names {
			if v := s.notes[prefix+name]; v != "" {
				return v
			}
		}
	}
	return ""
}

// dumped is config.dump, which podman, CRI-O and containerd write.
type dumped struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Image     string    `json:"rootfsImage"`
	ImageName string    `json:"rootfsImageName"`
	Runtime   string    `json:"runtime"`
	Time      time.Time `json:"checkpointedTime"`
}

// origin reads the files of the engine and the runtime, and CRIU's own.
func (s source) origin() (Origin, error) {
	var (
		config dumped
		spec   struct {
			Annotations map[string]string `json:"annotations"`
		}
	)
	errs := []error{s.json("config.dump", &config), s.json("spec.dump", &spec)}
	o := Origin{
		Container: container.Identify(spec.Annotations), Runtime: cmp.Or(config.Runtime, s.note("runtime.name")),
		Image: cmp.Or(config.ImageName, config.Image, spec.Annotations["io.kubernetes.cri.image-name"],
			spec.Annotations["io.kubernetes.cri-o.ImageName"], s.note("rootfsImageName", "rawImageName")),
		Engine: cmp.Or(engine(spec.Annotations), s.note("engine.name")), Time: config.Time,
	}
	o.Container.ID = config.ID
	o.Container.Name = cmp.Or(o.Container.Name, config.Name, s.note("container.name", "name"))
	if pod := s.note("pod.name"); pod != "" {
		o.Container.Pod = cmp.Or(o.Container.Pod, s.note("pod.namespace")+"/"+pod)
	}
	var network json.RawMessage
	if err := s.json("network.status", &network); err != nil {
		errs = append(errs, err)
	} else {
		o.Interfaces = interfaces(network)
	}
	frozen, err := s.frozen()
	o.FrozenUS = frozen.Microseconds()
	errs = append(errs, err)
	o.CRIUVersion = cmp.Or(s.criuVersion(), s.note("criu.version"))
	if o.Time.IsZero() {
		o.Time = s.written()
	}
	return o, errors.Join(errs...)
}

// engine names what made the container, by the annotations of its bundle.
func engine(annotations map[string]string) string {
	switch manager := annotations["io.container.manager"]; {
	case manager == "libpod":
		return "podman"
	case manager != "":
		return manager
	case annotations["io.kubernetes.cri.container-type"] != "":
		return "containerd"
	}
	return ""
}

// json reads a file beside the images into v. One that is not there leaves v as it is.
func (s source) json(name string, v any) error {
	data, _, err := s.file(name, maxJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(bytes.TrimSpace(data)) > 0 {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return code.New(code.Images, fmt.Sprintf("read %s: %v", name, err))
	}
	return nil
}

// frozen returns how long the tasks were stopped, 0 if it is not known.
func (s source) frozen() (time.Duration, error) {
	for _, dir := range s.beside {
		d, err := criuimg.FrozenTime(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
	}
	return 0, nil
}

// written returns when the dump was made, by the files' times. Archives keep them, other
// copies may not.
func (s source) written() time.Time {
	for _, name := range []string{"stats-dump", "dump.log", inventory} {
		if _, st, err := s.file(name, 0); err == nil {
			return st.ModTime()
		}
	}
	return time.Time{}
}

// versionLine is how CRIU's log begins (print_versions in criu/crtools.c).
var versionLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^\([0-9.]+\) Version: ([0-9][0-9A-Za-z.~+-]*)`)
})

// criuVersion returns the version of CRIU by its log, which only names it if it was
// verbose enough.
func (s source) criuVersion() string {
	log, _, _ := s.file("dump.log", maxPrefix) // one that cannot be read says nothing
	if m := versionLine().FindSubmatch(log); m != nil {
		return string(m[1])
	}
	return ""
}

// interfaces reads network.status: netavark's, by networks, or a list of results of CNI.
// What is neither says nothing.
func interfaces(data []byte) []Interface {
	var found []Interface
	var netavark map[string]struct {
		Interfaces map[string]struct {
			MAC     string `json:"mac_address"`
			Subnets []struct {
				Address string `json:"ipnet"`
			} `json:"subnets"`
		} `json:"interfaces"`
	}
	if json.Unmarshal(data, &netavark) == nil {
		for network, status := range netavark {
			for name, i := range status.Interfaces {
				one := Interface{Network: network, Name: name, MAC: i.MAC}
				for _, subnet := range i.Subnets {
					one.Addresses = append(one.Addresses, subnet.Address)
				}
				found = append(found, one)
			}
		}
		slices.SortFunc(found, func(a, b Interface) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Network, b.Network))
		})
		return found
	}
	var cni []struct {
		Interfaces []struct {
			Name    string `json:"name"`
			MAC     string `json:"mac"`
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
		IPs []struct {
			Address   string `json:"address"`
			Interface *int   `json:"interface"`
		} `json:"ips"`
	}
	if json.Unmarshal(data, &cni) != nil {
		return nil
	}
	for _, result := range cni {
		for n, i := range result.Interfaces {
			if i.Sandbox == "" {
				continue // the host's end
			}
			one := Interface{Name: i.Name, MAC: i.MAC}
			for _, ip := range result.IPs {
				if ip.Interface != nil && *ip.Interface == n {
					one.Addresses = append(one.Addresses, ip.Address)
				}
			}
			found = append(found, one)
		}
	}
	return found
}
