// SPDX-License-Identifier: Apache-2.0

// Package kubernetes checks the manifests in install/kubernetes: kustomize builds each
// overlay, and every object must be what Kubernetes' own types say, without a field that
// they do not know. It is a module of its own, so that these are no dependencies of the
// programs.
package kubernetes

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const manifests = "../../install/kubernetes"

// types are the kinds that may be in the manifests.
var types = map[string]func() runtime.Object{
	"apps/v1 DaemonSet": func() runtime.Object { return &appsv1.DaemonSet{} },
	"v1 ServiceAccount": func() runtime.Object { return &corev1.ServiceAccount{} },
}

// built is what kustomize makes of a directory.
func built(t *testing.T, dir string) map[string]runtime.Object {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(manifests, dir))
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]runtime.Object{}
	for _, r := range resources.Resources() {
		kind := r.GetApiVersion() + " " + r.GetKind()
		if types[kind] == nil {
			t.Fatalf("%s: nobody expects a %s", dir, kind)
		}
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object := types[kind]()
		if err := yaml.UnmarshalStrict(text, object); err != nil {
			t.Errorf("%s: %s: %v", dir, kind, err)
		}
		if r.GetNamespace() != "kube-system" {
			t.Errorf("%s: %s is in namespace %q", dir, kind, r.GetNamespace())
		}
		objects[kind] = object
	}
	return objects
}

// TestManifests builds the base and each overlay.
func TestManifests(t *testing.T) {
	overlays, err := os.ReadDir(filepath.Join(manifests, "overlays"))
	if err != nil || len(overlays) == 0 {
		t.Fatalf("no overlay: %v", err)
	}
	args := map[string][]string{
		"base":                {"--runtime=runc,crun"},
		"overlays/crio":       {"--runtime=crun,runc", "--manage-cgroups=ignore"},
		"overlays/containerd": {"--runtime=runc", "--manage-cgroups=ignore"},
	}
	dirs := []string{"base"}
	for _, o := range overlays {
		dirs = append(dirs, "overlays/"+o.Name())
	}
	for _, dir := range dirs {
		objects := built(t, dir)
		if len(objects) != len(types) {
			t.Errorf("%s has %d objects", dir, len(objects))
		}
		set, ok := objects["apps/v1 DaemonSet"].(*appsv1.DaemonSet)
		if !ok {
			t.Fatalf("%s has no DaemonSet", dir)
		}
		pod := set.Spec.Template.Spec
		node := pod.Containers[0]
		if !slices.Equal(node.Args, args[dir]) {
			t.Errorf("%s: the arguments are %v", dir, node.Args)
		}
		if !strings.HasPrefix(node.Image, "localhost/criu-netfreeze:") {
			t.Errorf("%s: the image is %s", dir, node.Image)
		}
		if !pod.HostPID || node.SecurityContext.Privileged == nil || !*node.SecurityContext.Privileged {
			t.Errorf("%s: it cannot see the node's processes", dir)
		}
		for key, value := range set.Spec.Selector.MatchLabels {
			if set.Spec.Template.Labels[key] != value {
				t.Errorf("%s: the selector does not fit the template", dir)
			}
		}
		mounted := map[string]string{}
		for _, v := range pod.Volumes {
			mounted[v.Name] = v.HostPath.Path
		}
		for _, m := range node.VolumeMounts {
			if want := map[string]string{"/host": "/", "/run/criu-netfreeze": "/run/criu-netfreeze"}[m.MountPath]; want == "" || mounted[m.Name] != want {
				t.Errorf("%s: %s is mounted at %s", dir, mounted[m.Name], m.MountPath)
			}
		}
	}
}
