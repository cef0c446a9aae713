// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Host describes the machine that the results are from.
type Host struct {
	When       string  `json:"when"`
	Kernel     string  `json:"kernel"`
	CRIU       string  `json:"criu"`
	Go         string  `json:"go"`
	Netfreeze  string  `json:"netfreeze"`
	CPUs       int     `json:"cpus"`
	MemoryMiB  uint64  `json:"memory_mib"`
	Rounds     int     `json:"rounds"`
	LoadBefore float64 `json:"load_before"` // average over 1 minute
	LoadAfter  float64 `json:"load_after"`
}

// Bound is a limit that a result should not exceed.
type Bound struct {
	What    string  `json:"what"`
	Figure  float64 `json:"figure"`
	Limit   float64 `json:"limit"`
	Unit    string  `json:"unit,omitempty"`
	Reached bool    `json:"reached"`
}

// results is everything that was measured, in the form of results.json.
type results struct {
	Host   Host     `json:"host"`
	Bounds []Bound  `json:"bounds"`
	Groups []*Group `json:"groups"`
}

func (r *results) add(g *Group) { r.Groups = append(r.Groups, g) }

func (r *results) group(name string) *Group {
	for _, g := range r.Groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// withPrefix returns the groups whose names begin with the prefix.
func (r *results) withPrefix(prefix string) (found []*Group) {
	for _, g := range r.Groups {
		if strings.HasPrefix(g.Name, prefix) {
			found = append(found, g)
		}
	}
	return found
}

func describeHost(rounds int) Host {
	h := Host{
		When: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Go: runtime.Version(),
		CPUs: runtime.NumCPU(), Rounds: rounds, LoadBefore: loadAverage(),
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		h.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.MemoryMiB = info.Totalram * uint64(info.Unit) >> 20
	}
	if out, err := command("criu", "--version"); err == nil {
		h.CRIU = strings.TrimPrefix(strings.SplitN(out, "\n", 2)[0], "Version: ")
	}
	if out, err := command(netfreeze, "--version"); err == nil {
		h.Netfreeze = strings.TrimSpace(out)
	}
	return h
}

func loadAverage() (load float64) {
	data, _ := os.ReadFile("/proc/loadavg")
	_, _ = fmt.Sscan(string(data), &load)
	return load
}

// load reads results.json of an earlier run.
func (r *results) load(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, r)
}

// write writes README.md, the plots and results.json to dir.
func (r *results) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	files := map[string]string{"results.json": string(data) + "\n"}
	if err := r.plots(files); err != nil {
		return err
	}
	page, err := r.page(files)
	if err != nil {
		return err
	}
	files["README.md"] = page
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// printTables shows all groups and the bounds as tables.
func (r *results) printTables(w io.Writer) {
	for _, g := range r.Groups {
		fmt.Fprintf(w, "%s\n", g.Title)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "%s\t%s\tquartiles\tadded\tquartiles\tratio\tn\t\n", "", g.Unit)
		for _, row := range g.Rows {
			added, spread, ratio := "", "", ""
			if row.Added != nil {
				added, spread = figure(row.Added.Median), spreadOf(*row.Added)
			}
			if row.Ratio != 0 {
				ratio = figure(row.Ratio)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t\n",
				row.Case, figure(row.Median), spreadOf(row.Summary), added, spread, ratio, row.N)
		}
		_ = t.Flush()
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "Bounds")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, b := range r.Bounds {
		fmt.Fprintf(t, "%s\t%s\tat most %s %s\t%s\n", b.What, figure(b.Figure), figure(b.Limit), b.Unit, verdict(b))
	}
	_ = t.Flush()
}

func verdict(b Bound) string {
	if b.Reached {
		return "reached"
	}
	return "NOT reached"
}

// figure formats a number with three significant digits, or as a whole number.
func figure(f float64) string {
	switch a := max(f, -f); {
	case a >= 100 || a == float64(int(a)):
		return fmt.Sprintf("%.0f", f)
	case a >= 10:
		return fmt.Sprintf("%.1f", f)
	case a >= 1:
		return fmt.Sprintf("%.2f", f)
	default:
		return fmt.Sprintf("%.3f", f)
	}
}

func spreadOf(s Summary) string { return figure(s.Low) + " to " + figure(s.High) }
