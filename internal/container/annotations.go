// SPDX-License-Identifier: Apache-2.0

package container

import "github.com/criu-netfreeze/criu-netfreeze/internal/identity"

// Identify returns what the OCI annotations of a container say of it: the names that
// CRI-O, containerd's CRI plugin and the kubelet set.
func Identify(annotations map[string]string) identity.Container {
	c := Container{Container: identity.Container{Annotations: annotations}}
	c.nameFromAnnotations()
	return c.Container
}
