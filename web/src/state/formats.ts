export function seconds(value: number): string {
  if (value < 1) return 'less than a second';
  if (value < 90) return `${Math.round(value)} s`;
  const minutes = Math.round(value / 60);
  return minutes < 90 ? `${minutes} min` : `${(value / 3600).toFixed(1)} h`;
}

export function bytes(value: string | number | undefined): string {
  const n = Number(value ?? 0);
  if (n === 0) return 'not known';
  if (n < 2 ** 20) return `${(n / 2 ** 10).toFixed(0)} KB`;
  if (n < 2 ** 30) return `${(n / 2 ** 20).toFixed(0)} MB`;
  return `${(n / 2 ** 30).toFixed(1)} GB`;
}

/** `JOB_STATE_COMPLETED` without its prefix: "completed". */
export function enumName(value: string | undefined, prefix: string): string {
  return (value ?? '').replace(`${prefix}_`, '').replaceAll('_', ' ').toLowerCase();
}

/** A job type as requests name it: "sdxl_image_fast"; empty if there was none. */
export function jobTypeName(value: string | undefined): string {
  return value === undefined || value === 'JOB_TYPE_UNSPECIFIED' ? '' : value.replace('JOB_TYPE_', '').toLowerCase();
}

export function extension(contentType: string): string {
  return { 'image/jpeg': 'jpg', 'video/mp4': 'mp4', 'image/webp': 'webp' }[contentType] ?? 'png';
}

export function time(value: string | number | undefined): string {
  return value === undefined ? '' : new Date(value).toLocaleString();
}
