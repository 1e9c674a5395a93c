apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ .Release.Name }}
  namespace: {{ .Release.Namespace }}
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: nvidia-device-plugin}
  template:
    metadata:
      labels: {app.kubernetes.io/name: nvidia-device-plugin}
    spec:
      terminationGracePeriodSeconds: 0
      {{- with .Values.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      affinity: {{ toJson .Values.affinity }}
      containers:
        - name: nvidia-device-plugin-ctr
          image: {{ .Values.image.repository }}:{{ .Values.image.tag }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          command: [sh, -c, {{ toJson .Values.testScript }}]
          env:
            - {name: MIG_STRATEGY, value: {{ .Values.migStrategy }}}
          volumeMounts: [{name: plugins, mountPath: /var/lib/kubelet/device-plugins}]
      volumes:
        - {name: plugins, hostPath: {path: /var/lib/kubelet/device-plugins, type: Directory}}
{{- range $name, $text := .Values.config.map }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: nvidia-device-plugin-configs
  namespace: {{ $.Release.Namespace }}
data:
  {{ $name }}: {{ toJson $text }}
{{- end }}
