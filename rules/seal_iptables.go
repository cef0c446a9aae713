// SPDX-License-Identifier: Apache-2.0

package rules

import "fmt"

// seal says which packets the rules of an iptables freeze let through.
type seal struct {
	marked  bool   // those with Mark, both ways
	answers uint32 // answers that leave with this mark; none if it is 0
}

// unsealed is how a freeze begins.
var unsealed = seal{marked: true}

// sealedBut is a freeze that lets nothing through but answers with the mark pass.
func sealedBut(pass uint32) seal { return seal{answers: pass} }

// passIn returns the rules for arriving packets that a freeze lets through: those with
// Mark, and IPv6 neighbour discovery.
func (s seal) passIn(neighbours bool) (rules []string) {
	if s.marked {
		rules = append(rules, fmt.Sprintf("-m mark --mark 0x%x -j RETURN", Mark))
	}
	if neighbours {
		for _, t := range []int{neighbourSolicitation, neighbourAdvertisement} {
			rules = append(rules, fmt.Sprintf("-p ipv6-icmp -m icmp6 --icmpv6-type %d -j RETURN", t))
		}
	}
	return rules
}

// passOut returns the same for leaving packets, with the answers. iptables cannot match
// the window or, with the modules that are everywhere, that there is no data; but then,
// it does not stop packet sockets either, which need no mark.
func (s seal) passOut(neighbours bool) []string {
	rules := s.passIn(neighbours)
	if s.answers != 0 {
		rules = append(rules, fmt.Sprintf("-p tcp -m mark --mark 0x%x -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG ACK -j RETURN", s.answers))
	}
	return rules
}
