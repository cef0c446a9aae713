// SPDX-License-Identifier: Apache-2.0

package netns

// Mounted returns a path at which the namespace is mounted in this mount namespace,
// such as /run/netns/NAME, or "" if there is none. Unlike a path below /proc/PID
// it stays valid when a process ends.
func Mounted(id ID) string {
	points, err := nsfsMounts()
	if err != nil {
		return ""
	}
	for _, point := range points {
		if got, err := statID(point); err == nil && got == id {
			return point
		}
	}
	return ""
}
