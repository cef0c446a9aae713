// SPDX-License-Identifier: Apache-2.0

// Package backend lists the packet filters that a freeze can be made with. The
// configuration, the records, the commands and package rules all use this list.
package backend

import (
	"fmt"
	"slices"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// Kind names a back end.
type Kind string

// The back ends. Auto stands for the first one that works, and IPTables for
// whichever variant the program called iptables is.
const (
	Auto           Kind = "auto"
	NFTables       Kind = "nftables"
	IPTables       Kind = "iptables"
	IPTablesNFT    Kind = "iptables-nft"
	IPTablesLegacy Kind = "iptables-legacy"
)

// All returns the kinds that a user may ask for, the default first.
func All() []Kind { return []Kind{Auto, NFTables, IPTables, IPTablesNFT, IPTablesLegacy} }

// Parse returns the kind called s. If there is none, the error lists the allowed names.
func Parse(s string) (Kind, error) {
	if k := Kind(s); slices.Contains(All(), k) {
		return k, nil
	}
	return "", code.New(code.Usage, fmt.Sprintf("unknown back end %q (allowed: %s)", s, Names()))
}

// Names returns the names of all kinds, separated by commas, for use in messages.
func Names() string {
	var names []string
	for _, k := range All() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}
