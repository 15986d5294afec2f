import type { DescriptorProto } from '@bufbuild/protobuf/wkt';
import { FieldDescriptorProto_Type, type FileDescriptorSet } from '@bufbuild/protobuf/wkt';

/** The fields of a message type that are messages themselves, by field number. */
export type MessageShape = ReadonlyMap<number, MessageShape>;

/** The request types of all methods, by path (`/package.Service/Method`). */
export function requestShapes({ file: files }: FileDescriptorSet): ReadonlyMap<string, MessageShape> {
  const types = new Map<string, DescriptorProto>();
  const addType = (scope: string, type: DescriptorProto) => {
    const name = `${scope}.${type.name}`;
    types.set(name, type);
    for (const nested of type.nestedType) addType(name, nested);
  };
  for (const file of files) for (const type of file.messageType) addType(`.${file.package}`, type);

  const shapes = new Map<string, Map<number, MessageShape>>();
  const shapeOf = (name: string): MessageShape => {
    const known = shapes.get(name);
    if (known !== undefined) return known;
    const shape = new Map<number, MessageShape>();
    // Before its fields: a type may contain itself.
    shapes.set(name, shape);
    for (const { number, type, typeName } of types.get(name)?.field ?? [])
      if (type === FieldDescriptorProto_Type.MESSAGE) shape.set(number, shapeOf(typeName));
    return shape;
  };
  const methods = files.flatMap((file) =>
    file.service.flatMap((service) =>
      service.method.map(({ name, inputType }) => [`/${file.package}.${service.name}/${name}`, inputType] as const),
    ),
  );
  return new Map(methods.map(([path, type]) => [path, shapeOf(type)]));
}
