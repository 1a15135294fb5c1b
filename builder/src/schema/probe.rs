//! Reads the shape of a type off its `Deserialize`: it is asked for a value, and what it asks for in turn is noted.
//!
//! Each key is left out once to see whether it is missed. Refused, by a panic that the tests would see: types that a
//! machine's file does not have (bytes, unions of tables).

use std::cell::RefCell;
use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess,
    SeqAccess, Visitor,
};

/// What serde_spanned calls a value with its place.
const SPANNED: &str = "$__serde_spanned_private_Spanned";
const SPANNED_VALUE: &str = "$__serde_spanned_private_value";

/// The shape of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    #[default]
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A string or an array of strings.
    TextOrTexts,
    /// An array.
    Array(Box<Shape>),
    /// A table whose keys the user chooses.
    Map(Box<Shape>),
    /// A table of certain keys.
    Table(Vec<Field>),
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// Whether it has to be there.
    pub required: bool,
    /// Its value.
    pub shape: Shape,
}

/// The shape of a type.
///
/// # Panics
/// If the type has what no machine's file has.
pub(super) fn shape_of<T: DeserializeOwned>() -> Shape {
    let mut shape = traced::<T>(None).expect("with every key there is a value");
    let mut paths = Vec::new();
    collect(&shape, &mut Vec::new(), &mut paths);
    for path in paths {
        let required = traced::<T>(Some(&path)).is_err();
        mark(&mut shape, &path, required);
    }
    shape
}

/// A key's place: the keys that lead to it.
type Path = Vec<&'static str>;

fn traced<T: DeserializeOwned>(without: Option<&Path>) -> Result<Shape, de::value::Error> {
    let shape = RefCell::new(Shape::default());
    let probe = Probe {
        shape: &shape,
        path: &[],
        without,
    };
    T::deserialize(probe)?;
    Ok(shape.into_inner())
}

/// The places of all keys.
fn collect(shape: &Shape, path: &mut Path, found: &mut Vec<Path>) {
    match shape {
        Shape::Array(inner) | Shape::Map(inner) => collect(inner, path, found),
        Shape::Table(fields) => {
            for field in fields {
                path.push(field.name);
                found.push(path.clone());
                collect(&field.shape, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

fn mark(shape: &mut Shape, path: &[&'static str], required: bool) {
    match shape {
        Shape::Array(inner) | Shape::Map(inner) => mark(inner, path, required),
        Shape::Table(fields) => {
            let Some((first, rest)) = path.split_first() else {
                return;
            };
            for field in fields.iter_mut().filter(|field| field.name == *first) {
                if rest.is_empty() {
                    field.required = required;
                } else {
                    mark(&mut field.shape, rest, required);
                }
            }
        }
        _ => {}
    }
}

/// Answers whatever is asked with something plain, and notes what was asked.
struct Probe<'a> {
    shape: &'a RefCell<Shape>,
    path: &'a [&'static str],
    /// The key that is left out.
    without: Option<&'a Path>,
}

impl<'a> Probe<'a> {
    fn note(&self, shape: Shape) {
        *self.shape.borrow_mut() = shape;
    }

    fn within<'b>(&'b self, shape: &'b RefCell<Shape>) -> Probe<'b> {
        Probe {
            shape,
            path: self.path,
            without: self.without,
        }
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = de::value::Error;

    /// Only what may be a string or an array of them asks like this.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.note(Shape::TextOrTexts);
        visitor.visit_str("x")
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.note(Shape::Bool);
        visitor.visit_bool(true)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.note(Shape::Integer);
        visitor.visit_i64(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.note(Shape::Integer);
        visitor.visit_u64(1)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.note(Shape::Number);
        visitor.visit_f64(1.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.note(Shape::Text);
        visitor.visit_str("x")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let item = RefCell::new(Shape::default());
        let value = visitor.visit_seq(Once(Some(self.within(&item))))?;
        self.note(Shape::Array(Box::new(item.into_inner())));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let inner = RefCell::new(Shape::default());
        let value = visitor.visit_map(Once(Some(self.within(&inner))))?;
        self.note(Shape::Map(Box::new(inner.into_inner())));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if name == SPANNED {
            return visitor.visit_map(SpannedValue {
                probe: self,
                fields: fields.iter(),
                current: "",
            });
        }
        let done = RefCell::new(Vec::new());
        let value = visitor.visit_map(Fields {
            probe: &self,
            fields: fields.iter(),
            current: "",
            done: &done,
        })?;
        self.note(Shape::Table(done.into_inner()));
        Ok(value)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

/// An array of one value, or a table of one key.
struct Once<'a>(Option<Probe<'a>>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = de::value::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Self::Error> {
        self.0
            .take()
            .map(|probe| seed.deserialize(probe))
            .transpose()
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = de::value::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        let Some(probe) = &self.0 else {
            return Ok(None);
        };
        let key = RefCell::new(Shape::default());
        seed.deserialize(probe.within(&key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        let probe = self.0.take();
        seed.deserialize(probe.expect("a value follows its key"))
    }
}

/// All keys of a table but the one that is left out.
struct Fields<'a, 'p> {
    probe: &'a Probe<'p>,
    fields: std::slice::Iter<'static, &'static str>,
    current: &'static str,
    done: &'a RefCell<Vec<Field>>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = de::value::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        for name in self.fields.by_ref() {
            let without = self.probe.without.and_then(|path| path.split_last());
            if without.is_some_and(|(last, path)| last == name && path == self.probe.path) {
                continue;
            }
            self.current = name;
            let key = BorrowedStrDeserializer::new(name);
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        let shape = RefCell::new(Shape::default());
        let path = [self.probe.path, &[self.current]].concat();
        let value = seed.deserialize(Probe {
            shape: &shape,
            path: &path,
            without: self.probe.without,
        })?;
        self.done.borrow_mut().push(Field {
            name: self.current,
            required: false,
            shape: shape.into_inner(),
        });
        Ok(value)
    }
}

/// A value with its place, which is of no shape of its own.
struct SpannedValue<'a> {
    probe: Probe<'a>,
    fields: std::slice::Iter<'static, &'static str>,
    current: &'static str,
}

impl<'de> MapAccess<'de> for SpannedValue<'_> {
    type Error = de::value::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        let Some(name) = self.fields.next() else {
            return Ok(None);
        };
        self.current = name;
        let key = BorrowedStrDeserializer::new(name);
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        if self.current == SPANNED_VALUE {
            seed.deserialize(self.probe.within(self.probe.shape))
        } else {
            seed.deserialize(0_u64.into_deserializer())
        }
    }
}

impl fmt::Debug for Probe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("path", &self.path).finish()
    }
}
