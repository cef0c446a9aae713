// Package backend names the packet filters by which a freeze can be made: the one
// list of them, for the configuration, the records and package rules.
package backend

import (
	"fmt"
	"slices"
	"strings"
)

// Kind names a back end.
type Kind string

// The back ends. Auto means the first one that works; IPTables whichever
// variant the program called iptables is.
const (
	Auto           Kind = "auto"
	NFTables       Kind = "nftables"
	IPTables       Kind = "iptables"
	IPTablesNFT    Kind = "iptables-nft"
	IPTablesLegacy Kind = "iptables-legacy"
)

// All returns the kinds that a user may ask for, the default one first.
func All() []Kind { return []Kind{Auto, NFTables, IPTables, IPTablesNFT, IPTablesLegacy} }

// Parse returns the kind called s. The error names the allowed ones.
func Parse(s string) (Kind, error) {
	if k := Kind(s); slices.Contains(All(), k) {
		return k, nil
	}
	return "", fmt.Errorf("unknown back end %q (allowed: %s)", s, Names())
}

// Names lists all kinds for a message, with commas between them.
func Names() string {
	var names []string
	for _, k := range All() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}
