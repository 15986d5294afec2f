import type { ServiceDefinition, UntypedHandleCall } from '@grpc/grpc-js';
import type { InferenceError } from '../../errors.js';
import type { ServerObserver } from '../observe/server-observer.js';
import { undecodable } from './request-bounds.js';

/** A request that could not be decoded; the handler throws its error. */
export class RefusedRequest {
  readonly error: InferenceError;

  constructor(error: InferenceError) {
    this.error = error;
  }
}

/** The definition of a service that words the error of requests it cannot decode, and reports the size of each response. */
export function decodedService<T>(
  service: ServiceDefinition<T & Record<string, UntypedHandleCall>> | object,
  observer: Pick<ServerObserver, 'responseSent'>,
): ServiceDefinition<T & Record<string, UntypedHandleCall>> {
  const definition = service as ServiceDefinition<Record<string, UntypedHandleCall>>;
  const decoded = Object.entries(definition).map(([name, method]) => {
    const deserialize = (bytes: Buffer): unknown => {
      try {
        return method.requestDeserialize(bytes);
      } catch {
        return new RefusedRequest(undecodable());
      }
    };
    const serialize = (response: unknown): Buffer => {
      const bytes = method.responseSerialize(response);
      observer.responseSent(method.path, bytes.length);
      return bytes;
    };
    return [name, { ...method, requestDeserialize: deserialize, responseSerialize: serialize }];
  });
  return Object.fromEntries(decoded) as ServiceDefinition<T & Record<string, UntypedHandleCall>>;
}
