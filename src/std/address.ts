const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/;

/** Splits host:port for `listen`: IPv6 loses its brackets. A port is needed. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[(.*)\]$/, '$1'), port: Number(address.slice(at + 1)) };
}

/** An address without its port, if it has one: IPv6 keeps its brackets. */
export function withoutPort(address: string): string {
  return address.replace(/:\d+$/, '');
}

/** True for a host that only this machine reaches. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host);
}

/** The host to connect to for a server that listens on an address: every interface of a machine includes loopback. */
export function connectableHost(listen: string): string {
  const host = withoutPort(listen);
  return /^(0\.0\.0\.0|\[::\])$/.test(host) ? '127.0.0.1' : host;
}
