// SPDX-License-Identifier: Apache-2.0

package rules

import "github.com/criu-netfreeze/criu-netfreeze/internal/backend"

// Kind is backend.Kind, for callers that still use its old name.
type Kind = backend.Kind

// The back ends, see package backend.
const (
	Auto           = backend.Auto
	NFTables       = backend.NFTables
	IPTables       = backend.IPTables
	IPTablesNFT    = backend.IPTablesNFT
	IPTablesLegacy = backend.IPTablesLegacy
)
