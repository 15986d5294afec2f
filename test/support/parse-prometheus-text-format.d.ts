declare module 'parse-prometheus-text-format' {
  /** Reads Prometheus' text format into families of samples. */
  export default function parsePrometheusTextFormat(text: string): unknown;
}
