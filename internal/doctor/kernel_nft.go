// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// rewrite puts a rule in place that sets the window of TCP segments to 0, in a namespace
// that is thrown away: it tells whether nf_tables has the payload statement. What it
// freezes with otherwise, sets whose elements time out, is tried by freezing.
func rewrite() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "netfreeze-doctor", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw,
	})
	const window, sum = 14, 16 // in the TCP header, 2 bytes each
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Immediate{Register: 1, Data: []byte{0, 0}},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader,
			Offset: window, Len: 2, CsumType: expr.CsumTypeInet, CsumOffset: sum,
		},
	}})
	return c.Flush()
}
