//! Parquet as all tables of a dataset have it, and a column builder that remembers its field.
//!
//! Contract: the same rows give the same bytes: one thread, fixed sizes of row groups, no clock, no version of a
//! library in the footer. ZSTD 3; a row group has [`ROW_GROUP`] rows, a batch in memory [`BATCH`].
//! Trap: columns must be asked for in the order of the fields.

use std::sync::Arc;

use arrow_array::builder::{
    FixedSizeListBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMillisecondBuilder,
    UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::FinishError;
use super::publish::{Draft, Publication};

/// Rows of a row group.
pub const ROW_GROUP: usize = 65_536;

/// Rows that are collected before they are encoded.
pub const BATCH: usize = 4096;

/// A list of whole numbers.
pub type IntList = ListBuilder<Int64Builder>;

/// A column as it grows.
pub trait Column: Default {
    /// Its type.
    fn data_type() -> DataType;
    /// What was collected; empty afterwards.
    fn take(&mut self) -> ArrayRef;
}

macro_rules! column {
    ($builder:ty, $kind:expr) => {
        impl Column for $builder {
            fn data_type() -> DataType {
                $kind
            }
            fn take(&mut self) -> ArrayRef {
                Arc::new(self.finish())
            }
        }
    };
}

column!(StringBuilder, DataType::Utf8);
column!(Float64Builder, DataType::Float64);
column!(Int64Builder, DataType::Int64);
column!(UInt8Builder, DataType::UInt8);
column!(UInt16Builder, DataType::UInt16);
column!(UInt32Builder, DataType::UInt32);
column!(UInt64Builder, DataType::UInt64);
column!(IntList, DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))));

/// Instants in UTC, to the millisecond.
#[derive(Debug)]
pub struct Instants(pub TimestampMillisecondBuilder);

impl Default for Instants {
    fn default() -> Self {
        Self(TimestampMillisecondBuilder::new().with_timezone("UTC"))
    }
}

impl Column for Instants {
    fn data_type() -> DataType {
        DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
    }
    fn take(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

/// Six coefficients of an affine transform.
#[derive(Debug)]
pub struct Affine(FixedSizeListBuilder<Float64Builder>);

impl Default for Affine {
    fn default() -> Self {
        Self(FixedSizeListBuilder::new(Float64Builder::new(), 6))
    }
}

impl Affine {
    /// One more.
    pub fn push(&mut self, coefficients: [f64; 6]) {
        self.0.values().append_slice(&coefficients);
        self.0.append(true);
    }
}

impl Column for Affine {
    fn data_type() -> DataType {
        DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Float64, true)), 6)
    }
    fn take(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

/// A field of a column's type.
pub fn field<C: Column>(name: &str, _: &C, nullable: bool) -> Field {
    Field::new(name, C::data_type(), nullable)
}

/// A table being written.
pub struct TableWriter {
    name: String,
    schema: Arc<Schema>,
    writer: ArrowWriter<Draft>,
}

impl TableWriter {
    /// Begins the table `name` of a publication; `metadata` goes into the footer.
    ///
    /// # Errors
    /// As the system says.
    pub fn begin(
        to: &Publication,
        name: &str,
        fields: Vec<Field>,
        metadata: Vec<(String, String)>,
    ) -> Result<Self, FinishError> {
        let schema = Arc::new(Schema::new(fields));
        let level = ZstdLevel::try_new(3).unwrap_or_default();
        let pairs = metadata.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .set_created_by("satellite-pipeline".to_owned())
            .set_key_value_metadata(Some(pairs))
            .build();
        let writer = ArrowWriter::try_new(to.draft(name)?, schema.clone(), Some(properties));
        Ok(Self { name: name.to_owned(), schema, writer: writer.map_err(|e| failed(name, &e))? })
    }

    /// Writes the rows that were collected, columns in the order of the fields.
    ///
    /// # Errors
    /// As the system says.
    pub fn write(&mut self, columns: Vec<ArrayRef>) -> Result<(), FinishError> {
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| failed(&self.name, &e))?;
        self.writer.write(&batch).map_err(|e| failed(&self.name, &e))
    }

    /// Ends the table.
    ///
    /// # Errors
    /// As the system says.
    pub fn end(self, to: &mut Publication) -> Result<(), FinishError> {
        let draft = self.writer.into_inner().map_err(|e| failed(&self.name, &e))?;
        to.close(draft)
    }
}

fn failed(table: &str, error: &dyn std::fmt::Display) -> FinishError {
    FinishError::Table { path: table.to_owned(), why: error.to_string() }
}
