import type { DescriptorProto } from '@bufbuild/protobuf/wkt';
import { FieldDescriptorProto_Label, FieldDescriptorProto_Type, type FileDescriptorSet } from '@bufbuild/protobuf/wkt';

/** The fields of a message type that are messages themselves, or lists of numbers, by field number. */
export type MessageShape = ReadonlyMap<number, MessageShape | NumberList>;

/** A repeated field of numbers. A packed one has them one after the other, without tags. */
export interface NumberList {
  /** Bytes of each number. Undefined: varints. */
  readonly bytes: number | undefined;
}

const { MESSAGE, STRING, BYTES, DOUBLE, FIXED64, SFIXED64, FLOAT, FIXED32, SFIXED32 } = FieldDescriptorProto_Type;
const WITHOUT_NUMBERS: readonly FieldDescriptorProto_Type[] = [MESSAGE, STRING, BYTES];
const WIDTHS = new Map([
  ...[DOUBLE, FIXED64, SFIXED64].map((type) => [type, 8] as const),
  ...[FLOAT, FIXED32, SFIXED32].map((type) => [type, 4] as const),
]);

/** The request types of all methods, by path (`/package.Service/Method`). */
export function requestShapes({ file: files }: FileDescriptorSet): ReadonlyMap<string, MessageShape> {
  const types = new Map<string, DescriptorProto>();
  const addType = (scope: string, type: DescriptorProto) => {
    const name = `${scope}.${type.name}`;
    types.set(name, type);
    for (const nested of type.nestedType) addType(name, nested);
  };
  for (const file of files) for (const type of file.messageType) addType(`.${file.package}`, type);

  const shapes = new Map<string, Map<number, MessageShape | NumberList>>();
  const shapeOf = (name: string): MessageShape => {
    const known = shapes.get(name);
    if (known !== undefined) return known;
    const shape = new Map<number, MessageShape | NumberList>();
    // Before its fields: a type may contain itself.
    shapes.set(name, shape);
    for (const { number, type, typeName, label } of types.get(name)?.field ?? []) {
      if (type === MESSAGE) shape.set(number, shapeOf(typeName));
      const isList = label === FieldDescriptorProto_Label.REPEATED && !WITHOUT_NUMBERS.includes(type);
      if (isList) shape.set(number, { bytes: WIDTHS.get(type) });
    }
    return shape;
  };
  const methods = files.flatMap((file) =>
    file.service.flatMap((service) =>
      service.method.map(({ name, inputType }) => [`/${file.package}.${service.name}/${name}`, inputType] as const),
    ),
  );
  return new Map(methods.map(([path, type]) => [path, shapeOf(type)]));
}
