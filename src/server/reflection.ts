import { toBinary } from '@bufbuild/protobuf';
import {
  type DescriptorProto,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  type FileDescriptorSet,
} from '@bufbuild/protobuf/wkt';
import type { handleBidiStreamingCall, Server, ServerDuplexStream } from '@grpc/grpc-js';
import { statusCodes } from '../errors.js';
import {
  type ServerReflectionRequest,
  type ServerReflectionResponse,
  ServerReflectionService,
} from '../gen/grpc/reflection/v1/reflection.js';
import { ServerReflectionService as AlphaService } from '../gen/grpc/reflection/v1alpha/reflection.js';
import { drained } from '../std/drained.js';

type Answer = NonNullable<ServerReflectionResponse['messageResponse']>;

/**
 * Server reflection v1 and v1alpha over the descriptor set that buf built, each file as it was written. The library for
 * it merges the files of a package under one name, and then clients miss what a file imports.
 * https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
 *
 * @param descriptors with all dependencies
 */
export function addReflection(server: Server, descriptors: FileDescriptorSet): void {
  const index = indexFiles(descriptors.file);
  const handle: handleBidiStreamingCall<ServerReflectionRequest, ServerReflectionResponse> = (call) => {
    const left = new AbortController();
    call.on('cancelled', () => left.abort());
    serve(call, index, left.signal).catch(() => call.end());
  };
  server.addService(ServerReflectionService, { serverReflectionInfo: handle });
  // The two versions differ in name only.
  server.addService(AlphaService, { serverReflectionInfo: handle });
}

/** Answers the requests of a stream one after the other: a client that does not read its answers is not read either. */
async function serve(
  call: ServerDuplexStream<ServerReflectionRequest, ServerReflectionResponse>,
  index: Index,
  signal: AbortSignal,
): Promise<void> {
  // The end of the requests must not end the answers, too.
  const requests: AsyncIterable<ServerReflectionRequest> = call.iterator({ destroyOnReturn: false });
  for await (const originalRequest of requests) {
    const messageResponse = answer(index, originalRequest.messageRequest);
    if (!call.write({ validHost: originalRequest.host, originalRequest, messageResponse })) await drained(call, signal);
    if (signal.aborted) return;
  }
  call.end();
}

interface Index {
  readonly files: ReadonlyMap<string, FileDescriptorProto>;
  /** File of each message, enum, service and method, by full name. */
  readonly symbols: ReadonlyMap<string, FileDescriptorProto>;
  readonly services: readonly string[];
}

function indexFiles(all: readonly FileDescriptorProto[]): Index {
  const symbols = new Map<string, FileDescriptorProto>();
  const services: string[] = [];
  for (const file of all) {
    const addMessage = (scope: string, message: DescriptorProto) => {
      const name = `${scope}.${message.name}`;
      symbols.set(name, file);
      for (const field of message.field) symbols.set(`${name}.${field.name}`, file);
      for (const nested of message.enumType) symbols.set(`${name}.${nested.name}`, file);
      for (const nested of message.nestedType) addMessage(name, nested);
    };
    for (const message of file.messageType) addMessage(file.package, message);
    for (const { name } of file.enumType) symbols.set(`${file.package}.${name}`, file);
    for (const service of file.service) {
      const name = `${file.package}.${service.name}`;
      services.push(name);
      symbols.set(name, file);
      for (const method of service.method) symbols.set(`${name}.${method.name}`, file);
    }
  }
  return { files: new Map(all.map((file) => [file.name, file])), symbols, services };
}

function answer(index: Index, request: ServerReflectionRequest['messageRequest']): Answer {
  switch (request?.$case) {
    case 'listServices':
      return { $case: 'listServicesResponse', value: { service: index.services.map((name) => ({ name })) } };
    case 'fileByFilename':
      return fileAnswer(index, index.files.get(request.value), request.value);
    case 'fileContainingSymbol':
      return fileAnswer(index, index.symbols.get(request.value), request.value);
    case 'allExtensionNumbersOfType':
      return index.symbols.has(request.value)
        ? {
            $case: 'allExtensionNumbersResponse',
            value: { baseTypeName: request.value, extensionNumber: [] },
          }
        : notFound(request.value);
    default:
      return notFound('an extension');
  }
}

function fileAnswer(index: Index, file: FileDescriptorProto | undefined, asked: string): Answer {
  if (file === undefined) return notFound(asked);
  // The answer contains all imports, so that a client asks once.
  const found = new Set<FileDescriptorProto>();
  const collect = (next: FileDescriptorProto | undefined) => {
    if (next === undefined || found.has(next)) return;
    found.add(next);
    for (const name of next.dependency) collect(index.files.get(name));
  };
  collect(file);
  const fileDescriptorProto = [...found].map((each) => Buffer.from(toBinary(FileDescriptorProtoSchema, each)));
  return { $case: 'fileDescriptorResponse', value: { fileDescriptorProto } };
}

function notFound(asked: string): Answer {
  return { $case: 'errorResponse', value: { errorCode: statusCodes.NOT_FOUND, errorMessage: `${asked} is not known` } };
}
