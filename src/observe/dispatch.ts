import type { Logger } from '../log.js';

type Methods<T> = { readonly [K in keyof T]: T[K] extends (...args: infer A) => void ? (...args: A) => void : never };

/**
 * One observer that passes every call on to several. An observer that throws is logged; what it observes goes on.
 * @param names of all methods of the interface
 */
export function dispatchTo<T extends object>(
  observers: readonly Partial<T>[],
  names: readonly (keyof T & string)[],
  log: Logger,
): Methods<T> {
  const methods = names.map((name) => {
    const listeners = observers.filter((observer) => observer[name] !== undefined);
    const call = (...args: readonly unknown[]) => {
      for (const listener of listeners) {
        try {
          (listener[name] as (...args: readonly unknown[]) => void)(...args);
        } catch (error) {
          log.error({ err: error, method: name }, 'an observer failed');
        }
      }
    };
    return [name, call] as const;
  });
  return Object.fromEntries(methods) as Methods<T>;
}
