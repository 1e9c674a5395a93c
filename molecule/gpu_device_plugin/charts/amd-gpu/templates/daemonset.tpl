apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: amd-gpu-device-plugin-daemonset
  namespace: {{ .Release.Namespace }}
spec:
  selector:
    matchLabels: {name: amd-gpu-dp-ds}
  template:
    metadata:
      labels: {name: amd-gpu-dp-ds}
    spec:
      terminationGracePeriodSeconds: 0
      {{- if .Values.node_selector_enabled }}
      nodeSelector: {{ toJson .Values.node_selector }}
      {{- end }}
      containers:
        - name: amd-gpu-dp-cntr
          image: {{ .Values.dp.image.repository }}:{{ .Values.dp.image.tag }}
          command: [sh, -c, "echo registered && exec sleep 1000000"]
          volumeMounts: [{name: dp, mountPath: /var/lib/kubelet/device-plugins}]
      volumes:
        - {name: dp, hostPath: {path: /var/lib/kubelet/device-plugins, type: Directory}}
