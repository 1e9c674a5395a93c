{{- if .Values.testHang }}
# Helm waits for it, so that it can be killed in the middle of an upgrade.
apiVersion: v1
kind: Pod
metadata:
  name: hang
  namespace: {{ .Release.Namespace }}
  annotations: {helm.sh/hook: pre-upgrade}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
    - name: hang
      image: docker.io/rancher/mirrored-library-busybox:1.37.0
      command: [sleep, "1000"]
{{- end }}
