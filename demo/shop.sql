-- A small shop. Everything follows from the row's number, so that every seed gives the same rows.

drop table if exists orders, products, users;
drop type if exists order_status;

create type order_status as enum ('placed', 'paid', 'shipped', 'delivered', 'returned');

create table users (
    id          bigint primary key,
    email       text not null unique,
    full_name   varchar(60) not null,
    country     char(2) not null,
    birthday    date,
    newsletter  boolean not null,
    customer_id uuid not null,
    created_at  timestamptz not null
);

create table products (
    id         integer primary key,
    sku        varchar(16) not null unique,
    title      text not null,
    price      numeric(10, 2) not null,
    weight_kg  real,
    tags       text[] not null,
    sizes_cm   numeric(6, 1)[],
    attributes jsonb not null
);

create table orders (
    id          bigint primary key,
    user_id     bigint not null references users (id),
    product_id  integer not null references products (id),
    quantity    smallint not null,
    amount      numeric(12, 2) not null,
    status      order_status not null,
    note        text,
    ordered_at  timestamptz not null,
    delivery    interval
);

-- hashint4 spreads the numbers; the bit mask drops its sign.
insert into users
select i,
       'user' || i || '@example.com',
       (array['Ada', 'Grace', 'Edsger', 'Barbara', 'Donald', 'Frances', 'Kurt', 'Łucja', 'Söǌke', '美咲'])[1 + h % 10]
           || ' ' || (array['Lovelace', 'Hopper', 'Dijkstra', 'Liskov', 'Knuth', 'Allen', 'Gödel'])[1 + h / 16 % 7],
       (array['DE', 'FR', 'GB', 'JP', 'PL', 'US'])[1 + h / 128 % 6],
       case when i % 7 <> 0 then date '1950-01-01' + h % 20000 end,
       h % 3 = 0,
       md5('user ' || i)::uuid,
       timestamptz '2020-01-01 00:00:00+00' + h % 157680000 * interval '1 second'
from (select i, hashint4(i) & 2147483647 as h from generate_series(1, 10000) as i) as numbers;

insert into products
select i,
       'SKU-' || lpad(i::text, 5, '0'),
       (array['Kettle', 'Lamp', 'Chair', 'Desk', 'Shelf', 'Rug', 'Clock', 'Mirror'])[1 + h % 8] || ' No. ' || i,
       (500 + h % 50000) / 100.0,
       case when i % 11 <> 0 then (h % 30000) / 1000.0 end,
       case when i % 13 = 0 then '{}'::text[]
            else array['new', (array['wood', 'steel', 'glass', 'wool'])[1 + h / 8 % 4]] end,
       case when i % 5 <> 0 then array[10 + h % 200, 5 + h / 64 % 100, (h / 128 % 1000) / 10.0] end,
       jsonb_build_object(
           'colour', (array['red', 'green', 'blue', 'black'])[1 + h / 32 % 4],
           'rating', round((h % 50) / 10.0, 1),
           'in_stock', i % 9 <> 0,
           'dimensions', jsonb_build_object('unit', 'cm', 'boxed', h % 2 = 0))
from (select i, hashint4(i + 1000000) & 2147483647 as h from generate_series(1, 500) as i) as numbers;

insert into orders
select i,
       1 + h % 10000,
       p.id,
       1 + h / 16 % 5,
       p.price * (1 + h / 16 % 5),
       (enum_range(null::order_status))[1 + h / 256 % 5],
       case when i % 10 = 0 then 'leave it with neighbour ' || h % 100 end,
       timestamptz '2024-01-01 00:00:00+00' + h % 63072000 * interval '1 second' + i % 1000 * interval '1 millisecond',
       case when h / 256 % 5 >= 3 then (1 + h % 9) * interval '1 day' + h % 86400 * interval '1 second' end
from (select i, hashint4(i + 2000000) & 2147483647 as h from generate_series(1, 120000) as i) as numbers
join products as p on p.id = 1 + h / 1024 % 500;

create index on orders (ordered_at);

analyze users, products, orders;
